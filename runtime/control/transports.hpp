#pragma once

#include <string>

#include "runtime/control/api.hpp"

/// What a lease's wishes for transports mean, the same for the manager, which chooses workers, and for the
/// client, which chooses the way to each.
namespace sublet::api {

/// @retval Errc::invalid_argument Too many or strange names, or wishes that contradict each other.
[[nodiscard]] Status check(const Transports& wishes);

/// Whether a worker may be reached by the transport.
[[nodiscard]] bool allows(const Transports& wishes, const std::string& transport);

/// "verbs", "verbs or tcp", "anything but tcp"; empty when everything is allowed.
[[nodiscard]] std::string in_words(const Transports& wishes);

}  // namespace sublet::api
