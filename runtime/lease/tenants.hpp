#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

#include "runtime/lease/node.hpp"

namespace sublet::lease {

/// What a site grants to one tenant.
struct TenantPolicy {
  std::uint32_t share = 1;       ///< Weight among tenants that wait; at least 1.
  std::uint32_t cores_max = 0;   ///< Of its active leases; 0: no quota.
  std::uint32_t leases_max = 0;  ///< Active at a time; 0: no quota.
};

struct Tenant {
  TenantPolicy policy;
  std::uint32_t number = 0;  ///< In tokens.
  std::uint32_t leases = 0;  ///< Active.
  Resources held;            ///< As its active leases ask, lost workers included.

  /// Whether one more lease of these workers stays within the quota.
  [[nodiscard]] bool may_have(std::uint64_t cores) const noexcept {
    return (policy.cores_max == 0 || held.cores + cores <= policy.cores_max) &&
           (policy.leases_max == 0 || leases < policy.leases_max);
  }
  /// The largest part that it holds of any one resource, divided by its share: who has least of what it may
  /// have is served first (dominant resource fairness, Ghodsi et al., NSDI 2011).
  [[nodiscard]] double claim(const Resources& total) const noexcept {
    const auto part = [](auto have, auto all) {
      return all > 0 ? static_cast<double>(have) / static_cast<double>(all) : 0.0;
    };
    return std::max({part(held.cores, total.cores), part(held.gpus, total.gpus),
                     part(held.memory_bytes, total.memory_bytes)}) /
           policy.share;
  }
};

}  // namespace sublet::lease
