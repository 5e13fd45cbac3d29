#pragma once

#include <memory>
#include <string>

#include "runtime/base/result.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::transport::fabric {

/// The backend over libfabric's tcp provider with connected endpoints (FI_EP_MSG). The published
/// address is our gate's: libfabric's own listener lives for the moment in which one admitted peer,
/// which knows its nonce, connects to it.
///
/// connect() and accept() run libfabric's blocking handshake in a short-lived thread.
[[nodiscard]] Result<std::unique_ptr<Transport>> open(const Timing& timing);

/// The backend over unconnected endpoints (FI_EP_RDM) of any provider of libfabric that orders remote writes
/// and carries 8 bytes of data with each: "tcp:ofi_rxm", "verbs:ofi_rxm", "sockets" and what a site has.
/// @param provider As libfabric names it, with a colon for its semicolon, which shells would take.
/// @retval Errc::unavailable when it is missing or lacks something.
[[nodiscard]] Result<std::unique_ptr<Transport>> open_provider(const std::string& provider,
                                                               const Timing& timing);

/// Loads and probes libfabric.
[[nodiscard]] Status preload();

}  // namespace sublet::transport::fabric
