#pragma once

#include <memory>

#include "runtime/base/result.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::transport::shm {

/// The backend for two processes of one machine and one user: a unix socket as gate, regions mapped by
/// the peer, and two rings with doorbells for each connection. Nothing is left behind by a killed
/// process but the socket's file; a killed or stopped peer holds no lock.
[[nodiscard]] Result<std::unique_ptr<Transport>> open(const Timing& timing);

}  // namespace sublet::transport::shm
