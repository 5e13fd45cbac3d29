#pragma once

#include <string>
#include <vector>

#include "runtime/base/result.hpp"
#include "runtime/control/api.hpp"

namespace sublet::client {

struct Endpoint {
  std::string transport;
  std::string address;
};

/// This machine's boot id: what a worker on the same machine has too. Empty when it cannot be read.
[[nodiscard]] std::string boot_id();

/// "shm" of "fault:1:drop=0.1:shm": what the decorated transport connects to.
[[nodiscard]] std::string base_name(const std::string& transport);

/// The ways to a worker that the lease allows, best first: those in `allowed` in its order, or, when it
/// is empty, "shm" on the same machine, then "tcp".
/// @retval Errc::not_found naming what the worker offers.
[[nodiscard]] Result<std::vector<Endpoint>> endpoints_to(const api::GrantedWorker& worker,
                                                         const std::vector<std::string>& allowed,
                                                         const std::string& this_machine);

}  // namespace sublet::client
