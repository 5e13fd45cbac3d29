#pragma once

#include <string_view>

#include "runtime/base/result.hpp"
#include "runtime/control/api.hpp"

/// Bounds on what peers say, beyond their types.
namespace sublet::lease {

[[nodiscard]] Status check(const api::NodeRegistration& about);
[[nodiscard]] Status check(const api::Heartbeat& said);
[[nodiscard]] Status check(const api::LeaseRequest& request);
[[nodiscard]] Status check_ttl(std::uint64_t ttl_ms);
/// Letters, digits and ".:@_-", 1 to name_bytes_max of them.
[[nodiscard]] bool is_name(std::string_view text) noexcept;

}  // namespace sublet::lease
