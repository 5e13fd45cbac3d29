#include "benchmarks/baselines/verbs_addresses.hpp"

#include <netdb.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "benchmarks/command.hpp"
#include "runtime/transport/verbs/devices.hpp"
#include "runtime/transport/verbs/handle.hpp"

namespace sublet::bench {

namespace verbs = transport::verbs;

VerbsAddresses choose_verbs_addresses(const std::vector<std::string>& option) {
  if (option.size() > 2) throw Misuse("--verbs-addresses takes CLIENT,SERVER or one address for both");
  if (!option.empty()) return {option.front(), option.back()};
  const char* const client = std::getenv("SUBLET_TEST_RDMA_ADDRESS");
  const char* const server = std::getenv("SUBLET_TEST_RDMA_PEER_ADDRESS");
  if (client != nullptr) return {client, server != nullptr ? server : client};
  std::string why = "this machine has no RDMA device";
  for (const verbs::DeviceInfo& device : verbs::list_devices()) {
    if (!device.problem.empty()) why = device.name + ": " + device.problem;
    for (const verbs::Port& port : device.ports) {
      if (device.problem.empty() && port.active() && !port.addresses.empty())
        return {port.addresses.front(), port.addresses.front()};
    }
  }
  throw std::runtime_error(why + "; see `sublet doctor`, or run this in scripts/rdma-vm");
}

std::string verbs_device_of(const std::string& address) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.c_str(), nullptr, &hints, &found) != 0)
    throw std::runtime_error("'" + address + "' is no IP address");
  const verbs::EventChannel events(rdma_create_event_channel());
  rdma_cm_id* made = nullptr;
  int failed = events ? rdma_create_id(events.get(), &made, nullptr, RDMA_PS_TCP) : -1;
  const verbs::CmId id(made);
  if (failed == 0) failed = rdma_bind_addr(id.get(), found->ai_addr);
  const int code = errno;
  freeaddrinfo(found);
  if (failed != 0 || id->verbs == nullptr)
    throw std::runtime_error("no RDMA device has the address " + address + ": " + std::strerror(code));
  return ibv_get_device_name(id->verbs->device);
}

}  // namespace sublet::bench
