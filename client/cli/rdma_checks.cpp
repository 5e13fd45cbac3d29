// What the doctor says of RDMA: devices, ports, who may open them, and the memory that they lock.
#include <algorithm>

#include "client/cli/checks.hpp"
#include "client/cli/units.hpp"
#include "runtime/transport/transport.hpp"
#include "runtime/transport/verbs/devices.hpp"

namespace sublet::cli {

namespace {

namespace verbs = transport::verbs;

/// Two regions of an agent's default size for one worker, and what a client's lease registers by default.
constexpr std::uint64_t locked_wanted = std::uint64_t{384} << 20;

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

Check check_port(const verbs::DeviceInfo& device, const verbs::Port& port) {
  const bool named = !port.addresses.empty();
  Check check{.what = "RDMA " + device.name + " port " + std::to_string(port.number),
              .found = port.state + ", " + port.link_layer +
                       (port.active_mtu_bytes == 0 ? "" : ", MTU " + std::to_string(port.active_mtu_bytes)) +
                       (named ? ", reached by " + joined(port.addresses) : ", no address leads to it")};
  if (!port.active()) {
    check.level = Level::warn;
    check.advice = "look at the cable and the link (rdma link, ip link), on InfiniBand at the subnet manager";
  } else if (!named) {
    check.level = Level::warn;
    check.advice = "give its network interface an address: workers listen on one";
  }
  return check;
}

Check check_locked_memory(bool devices) {
  const std::uint64_t lockable = verbs::lockable_bytes();
  Check check{.what = "locked memory", .found = "unlimited"};
  if (lockable == UINT64_MAX) return check;
  check.found = in_bytes(lockable);
  if (!devices) {
    check.found += "; enough for tcp and shm";
  } else if (lockable >= locked_wanted) {
    check.found += "; enough for the regions that are registered by default";
  } else {
    check.level = Level::warn;
    check.advice =
        "verbs registers " + in_bytes(locked_wanted) +
        " by default: '* - memlock unlimited' in a file of /etc/security/limits.d and a new login, "
        "LimitMEMLOCK=infinity in a service";
  }
  return check;
}

}  // namespace

void check_verbs(std::vector<Check>& checks) {
  const std::vector<verbs::DeviceInfo> devices = verbs::list_devices();
  Check check{.what = "transport verbs", .found = "no RDMA device; none needed"};
  if (!devices.empty()) {
    const auto opened = transport::open("verbs");
    check.found = opened ? "works" : opened.error().detail();
    if (!opened) {
      check.level = Level::warn;
      check.advice = "calls go over tcp, which is slower; mend what the lines below say";
    }
  }
  checks.push_back(check);
  for (const verbs::DeviceInfo& device : devices) {
    if (!device.problem.empty()) {
      checks.push_back({.what = "RDMA " + device.name, .level = Level::warn, .found = device.problem});
    }
    for (const verbs::Port& port : device.ports) checks.push_back(check_port(device, port));
  }
  checks.push_back(check_locked_memory(!devices.empty()));
}

}  // namespace sublet::cli
