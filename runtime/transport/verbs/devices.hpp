#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/result.hpp"

/// Which RDMA devices this machine has: for those who choose a transport and those who ask why not.
namespace sublet::transport::verbs {

struct Gid {
  std::uint32_t index = 0;
  std::string text;     ///< "fe80:0000:...", as the kernel prints it.
  std::string type;     ///< "IB/RoCE v1", "RoCE v2"; empty when the kernel does not say.
  std::string network;  ///< The network interface behind it; may be empty.
};

struct Port {
  std::uint32_t number = 0;
  std::string state;                   ///< "ACTIVE", "DOWN", ... in the kernel's words.
  std::string link_layer;              ///< "InfiniBand" or "Ethernet".
  std::uint32_t active_mtu_bytes = 0;  ///< 0 when the device was not opened.
  std::vector<Gid> gids;
  std::vector<std::string> addresses;  ///< IP addresses that lead to it: what listen() takes.
  [[nodiscard]] bool active() const noexcept { return state == "ACTIVE"; }
};

struct DeviceInfo {
  std::string name;
  std::vector<Port> ports;
  std::string problem;  ///< Why it cannot be used and what to do; empty when it can.
};

/// True when there is a device with an active port that this process may open. Opens nothing, starts
/// nothing, takes microseconds.
[[nodiscard]] bool present() noexcept;

/// All devices of the machine, as the kernel's files describe them. Opens none.
[[nodiscard]] std::vector<DeviceInfo> find_devices();
/// The same, and what only the device itself tells: opens each for a moment. Not before a fork.
[[nodiscard]] std::vector<DeviceInfo> list_devices();

/// The memory that this process may lock, in bytes; UINT64_MAX: without limit.
[[nodiscard]] std::uint64_t lockable_bytes() noexcept;

}  // namespace sublet::transport::verbs
