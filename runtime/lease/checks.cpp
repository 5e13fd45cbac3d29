#include "runtime/lease/checks.hpp"

#include <algorithm>
#include <set>

#include "runtime/base/limits.hpp"

namespace sublet::lease {
namespace {

constexpr std::size_t endpoints_max = 8;
constexpr std::size_t address_bytes_max = 256;
constexpr std::uint32_t cores_max = 0xFFFF;                              // As a token has it.
constexpr std::uint64_t memory_bytes_max = std::uint64_t{0xFFFF} << 24;  // As a token has it.

Status wrong(std::string text) {
  return Error(Errc::invalid_argument, std::move(text));
}

Status check(const api::WorkerInfo& worker) {
  if (worker.endpoints.empty() || worker.endpoints.size() > endpoints_max) {
    return wrong("a worker has 1 to " + std::to_string(endpoints_max) + " endpoints");
  }
  for (const auto& [transport, address] : worker.endpoints) {
    if (!is_name(transport) || address.empty() || address.size() > address_bytes_max) {
      return wrong("an endpoint's transport or address is empty, too long or not plain");
    }
  }
  return {};
}

}  // namespace

bool is_name(std::string_view text) noexcept {
  return !text.empty() && text.size() <= limits::name_bytes_max &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                  c == ':' || c == '@' || c == '_' || c == '-';
         });
}

Status check(const api::NodeRegistration& about) {
  if (!is_name(about.name)) return wrong("name must be 1 to 64 letters, digits or .:@_-");
  if (!about.machine.empty() && !is_name(about.machine)) return wrong("machine must be a boot id");
  if (!is_name(about.version)) return wrong("version must be 1 to 64 letters, digits or .:@_-");
  if (about.cores == 0 || about.cores > cores_max) return wrong("cores must be 1 to 65535");
  if (about.memory_bytes == 0) return wrong("memory_bytes must not be 0");
  return {};
}

Status check(const api::Heartbeat& said) {
  if (std::max({said.ready.size(), said.serving.size(), said.ended.size()}) > limits::node_workers_max) {
    return wrong("a heartbeat lists at most " + std::to_string(limits::node_workers_max) +
                 " workers of a kind");
  }
  std::set<std::uint32_t> present;
  for (const api::WorkerInfo& worker : said.ready) {
    if (!present.insert(worker.id).second) {
      return wrong("worker " + std::to_string(worker.id) + " is listed twice");
    }
    if (Status good = check(worker); !good) return good;
  }
  for (const api::Heartbeat::Serving& serving : said.serving) {
    if (!present.insert(serving.worker).second) {
      return wrong("worker " + std::to_string(serving.worker) + " is listed twice");
    }
    if (serving.lease == 0) return wrong("a serving worker names its lease");
  }
  return {};
}

Status check_ttl(std::uint64_t ttl_ms) {
  if (ttl_ms > 0 && ttl_ms <= static_cast<std::uint64_t>(limits::lease_ms_max.count())) return {};
  return wrong("ttl_ms must be 1 to " + std::to_string(limits::lease_ms_max.count()));
}

Status check(const api::LeaseRequest& request) {
  if (request.workers == 0 || request.workers > limits::lease_workers_max) {
    return wrong("workers must be 1 to " + std::to_string(limits::lease_workers_max));
  }
  if (request.cores == 0 || request.cores > cores_max) return wrong("cores must be 1 to 65535");
  if (request.memory_bytes > memory_bytes_max) return wrong("memory_bytes must be below 1 TiB");
  if (!is_name(request.tenant)) return wrong("tenant must be 1 to 64 letters, digits or .:@_-");
  if (request.transports.size() > endpoints_max ||
      !std::all_of(request.transports.begin(), request.transports.end(), is_name)) {
    return wrong("transports must be at most " + std::to_string(endpoints_max) + " plain names");
  }
  return check_ttl(request.ttl_ms);
}

}  // namespace sublet::lease
