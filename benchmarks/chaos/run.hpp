#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sublet::bench::chaos {

struct ChaosOptions {
  double minutes = 0;
  std::uint64_t seed = 0;
  std::uint32_t agents = 0;
  std::uint32_t clients = 0;
};

struct ChaosReport {
  std::string summary;
  std::size_t acts = 0;
  std::vector<std::string> violations;  ///< Empty: all held.
  std::vector<std::string> history;     ///< What was done, and when.
  std::string evidence;                 ///< Logs, and where the files are kept; only with violations.
};

/// A site of real processes under a seeded schedule of kill -9, SIGSTOP and restarts, and then the question
/// whether anything was lost, ran twice or was left behind. Throws std::exception when it could not start.
[[nodiscard]] ChaosReport run_chaos(const ChaosOptions& options);

}  // namespace sublet::bench::chaos
