#pragma once

#include <memory>
#include <string>
#include <vector>

#include "benchmarks/frame/side.hpp"

namespace sublet::bench {

/// What one side did in all rounds.
struct Series {
  std::string name;
  std::vector<double> medians_us;        ///< Of each round.
  std::vector<double> calls_per_second;  ///< Of each round.
  Histogram times;                       ///< Of all rounds.
};

/// Runs the sides in turns, A B C A B C, so that a change of the machine meets all; a first round that
/// does not count warms caches and connections. Blocks. Throws std::exception.
[[nodiscard]] std::vector<Series> run_rounds(const std::vector<Side*>& sides, const Plan& plan,
                                             std::uint32_t rounds);

/// The median and quartiles over rounds of ours / theirs within a round.
struct Ratio {
  double median = 0;
  double q1 = 0;
  double q3 = 0;
};
[[nodiscard]] Ratio ratio_of(const std::vector<double>& ours, const std::vector<double>& theirs);

}  // namespace sublet::bench
