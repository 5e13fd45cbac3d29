#include "runtime/transport/transport.hpp"

#include <algorithm>

#include "runtime/base/clock.hpp"
#include "runtime/transport/fabric/fabric_transport.hpp"
#include "runtime/transport/fault/fault_transport.hpp"
#include "runtime/transport/shm/shm_transport.hpp"
#include "runtime/transport/verbs/devices.hpp"
#include "runtime/transport/verbs/verbs_transport.hpp"

namespace sublet::transport {

Result<RemoteRegion> Transport::register_device_memory(const DeviceMemory& /*memory*/) {
  return Error(Errc::unavailable,
               std::string(name()) + " reaches no memory of a GPU here; copy through a registered region");
}

Result<Transport::Connected> Transport::connect(const std::string& address,
                                                std::span<const std::byte> private_data,
                                                std::chrono::milliseconds timeout) {
  const TimePoint deadline = SteadyClock::now() + timeout;
  const Result<std::uint64_t> attempt = start_connect(address, private_data, timeout);
  if (!attempt) return attempt.error();
  while (true) {
    if (std::optional<Result<Connected>> done = take_connected(*attempt)) return std::move(*done);
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - SteadyClock::now());
    service(std::max(left, std::chrono::milliseconds(0)));
  }
}

Result<std::unique_ptr<Transport>> open(std::string_view name, const Timing& timing) {
  if (name == "tcp") return fabric::open(timing);
  if (name == "shm") return shm::open(timing);
  if (name == "verbs") return verbs::open(timing);
  constexpr std::string_view fabric_prefix = "fabric:";
  if (name.starts_with(fabric_prefix)) {
    return fabric::open_provider(std::string(name.substr(fabric_prefix.size())), timing);
  }
  if (name.starts_with("fault:")) {
    Result<fault::Specification> specification = fault::parse(name);
    if (!specification) return specification.error();
    Result<std::unique_ptr<Transport>> backend = open(specification->backend, timing);
    if (!backend) return backend;
    return fault::decorate(name, *specification, std::move(*backend));
  }
  std::string known;
  for (const std::string& each : names()) known += (known.empty() ? "" : ", ") + each;
  return Error(Errc::not_found,
               "no transport '" + std::string(name) + "'; there are: " + known + ", fabric:PROVIDER");
}

Status preload() {
  return fabric::preload();
}

std::vector<std::string> names() {
  std::vector<std::string> usable{"tcp", "shm"};
  if (verbs::present()) usable.emplace_back("verbs");
  return usable;
}

}  // namespace sublet::transport
