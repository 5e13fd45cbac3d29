#pragma once

#include <memory>

#include "runtime/base/result.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::transport::verbs {

/// Remote writes over reliable queue pairs of InfiniBand or RoCE, set up by the connection manager
/// (librdmacm). No socket beside them: heartbeats and last words are writes too.
/// @retval Errc::unavailable when no device can be used, with what to do.
[[nodiscard]] Result<std::unique_ptr<Transport>> open(const Timing& timing);

}  // namespace sublet::transport::verbs
