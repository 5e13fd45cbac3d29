#include "runtime/lease/checks.hpp"

#include <algorithm>
#include <vector>

#include "runtime/base/limits.hpp"
#include "runtime/control/transports.hpp"
#include "runtime/lease/placement.hpp"

namespace sublet::lease {
namespace {

constexpr std::size_t endpoints_max = 8;
constexpr std::size_t address_bytes_max = 256;
constexpr std::uint64_t number_max = (std::uint64_t{1} << 53) - 1;  // What every JSON reader has.
constexpr std::uint64_t ns_max = INT64_MAX;
constexpr std::uint32_t gpus_max = 1024;
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
    const bool plain = std::none_of(address.begin(), address.end(), [](unsigned char c) { return c < ' '; });
    if (!is_name(transport) || address.empty() || address.size() > address_bytes_max || !plain) {
      return wrong("an endpoint's transport or address is empty, too long or not plain");
    }
  }
  return {};
}

Status check(const std::vector<api::WorkerUsage>& usage) {
  if (usage.size() > limits::node_usage_max) {
    return wrong("a heartbeat accounts for at most " + std::to_string(limits::node_usage_max) + " workers");
  }
  for (const api::WorkerUsage& worker : usage) {
    if (worker.id == 0 || worker.lease == 0) return wrong("usage names its worker's id and its lease");
    if (std::max({worker.id, worker.lease, worker.calls_started}) > number_max ||
        std::max(worker.execution_ns, worker.hot_ns) > ns_max) {
      return wrong("usage has ids and counts below 2^53 and times below 2^63");
    }
    if (worker.calls > worker.calls_started) return wrong("usage has more calls than were started");
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
  if (about.gpus > gpus_max) return wrong("gpus must be at most " + std::to_string(gpus_max));
  if (about.memory_bytes == 0) return wrong("memory_bytes must not be 0");
  return {};
}

Status check(const api::Heartbeat& said) {
  if (std::max({said.ready.size(), said.serving.size(), said.ended.size()}) > limits::node_workers_max) {
    return wrong("a heartbeat lists at most " + std::to_string(limits::node_workers_max) +
                 " workers of a kind");
  }
  if (said.cores > cores_max || (said.cores == 0) != (said.memory_bytes == 0))
    return wrong("cores must be at most 65535 and come with memory_bytes");
  if (said.unchanged && !(said.ready.empty() && said.serving.empty())) {
    return wrong("a heartbeat that is unchanged lists no workers");
  }
  for (const api::Heartbeat::Ended& ended : said.ended) {
    if (ended.lease > number_max) return wrong("an ended worker names its lease, or 0");
    if (!ended.transport.empty() && !is_name(ended.transport))
      return wrong("an ended worker's transport is a plain name, or empty");
  }
  if (said.lends_ms > static_cast<std::uint64_t>(limits::lending_max.count()))
    return wrong("lends_ms must be at most " + std::to_string(limits::lending_max.count()) +
                 ", or 0: no end");
  if (Status good = check(said.usage); !good) return good;
  std::vector<std::uint32_t> present;
  present.reserve(said.ready.size() + said.serving.size());
  for (const api::WorkerInfo& worker : said.ready) {
    if (Status good = check(worker); !good) return good;
    present.push_back(worker.id);
  }
  for (const api::Heartbeat::Serving& serving : said.serving) {
    if (serving.lease == 0 || serving.lease > number_max) return wrong("a serving worker names its lease");
    if (!serving.transport.empty() && !is_name(serving.transport))
      return wrong("a serving worker's transport is a plain name, or empty");
    present.push_back(serving.worker);
  }
  std::sort(present.begin(), present.end());
  const auto twice = std::adjacent_find(present.begin(), present.end());
  if (twice != present.end()) return wrong("worker " + std::to_string(*twice) + " is listed twice");
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
  if (Status good = api::check(request.transports); !good) return good;
  if (request.gpus > gpus_max) return wrong("gpus must be at most " + std::to_string(gpus_max));
  if (!request.placement.empty() && request.placement != placement_spread &&
      request.placement != placement_pack) {
    return wrong("placement must be spread or pack");
  }
  return check_ttl(request.ttl_ms);
}

}  // namespace sublet::lease
