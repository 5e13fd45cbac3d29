#pragma once

#include <cstdint>
#include <string>

#include "client/cli/table.hpp"
#include "runtime/control/api.hpp"

/// Tables that more than one command shows.
namespace sublet::cli {

[[nodiscard]] Style style_of_node(const std::string& state);
[[nodiscard]] Table node_rows(const api::Nodes& nodes);
/// @param now_ms By the manager's clock.
[[nodiscard]] Table lease_rows(const api::Leases& leases, std::uint64_t now_ms);
[[nodiscard]] Table tenant_rows(const api::Tenants& tenants);

}  // namespace sublet::cli
