#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "benchmarks/chaos/site.hpp"
#include "runtime/control/api.hpp"

namespace sublet::bench::chaos {

/// What the functions of one lease have noted.
struct Counted {
  std::uint64_t started = 0;
  std::uint64_t finished = 0;
};

/// Of all ledgers.
struct Tally {
  std::uint64_t calls = 0;
  std::array<std::uint64_t, 16> outcomes{};  ///< By Outcome.
  std::map<std::uint64_t, Counted> leases;
  std::vector<std::string> violations;
};

/// Each call has one final status, and what its function has noted agrees with it.
[[nodiscard]] Tally judge_calls(const std::vector<ClientRun>& runs);
/// The manager's books against the functions'; empty when they agree.
[[nodiscard]] std::vector<std::string> judge_usage(const api::Usage& by_lease,
                                                   const std::map<std::uint64_t, Counted>& leases);
[[nodiscard]] std::string summary_of(const Tally& tally);

}  // namespace sublet::bench::chaos
