#pragma once

#include <memory>

#include "runtime/base/result.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::transport::fabric {

/// The backend over libfabric's tcp provider with connected endpoints (FI_EP_MSG). The published
/// address is our gate's: libfabric's own listener lives for the moment in which one admitted peer,
/// which knows its nonce, connects to it.
///
/// connect() and accept() run libfabric's blocking handshake in a short-lived thread.
[[nodiscard]] Result<std::unique_ptr<Transport>> open(const Timing& timing);

/// Loads and probes libfabric.
[[nodiscard]] Status preload();

}  // namespace sublet::transport::fabric
