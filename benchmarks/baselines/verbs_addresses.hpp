#pragma once

#include <string>
#include <vector>

namespace sublet::bench {

/// Where the two ends of a comparison over verbs are: one device when both are the same.
struct VerbsAddresses {
  std::string client;
  std::string server;
};

/// What the option says: CLIENT,SERVER, or one for both. Without it the environment's
/// SUBLET_TEST_RDMA_ADDRESS and SUBLET_TEST_RDMA_PEER_ADDRESS, then the first address of the first
/// device. Throws Misuse; std::runtime_error when there is no device.
[[nodiscard]] VerbsAddresses choose_verbs_addresses(const std::vector<std::string>& option);

/// The name of the RDMA device that an address leads to. Throws std::runtime_error.
[[nodiscard]] std::string verbs_device_of(const std::string& address);

}  // namespace sublet::bench
