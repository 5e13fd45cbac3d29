#pragma once

#include <cstdint>
#include <string>
#include <vector>

/// How much of a cluster's idle time could be lent, in simulated time.
namespace sublet::bench::harvest {

struct ReplayOptions {
  std::uint64_t seed = 1;
  unsigned nodes = 2000;
  unsigned days = 7;
  double quartile_low_s = 62;  ///< Of the idle gaps of a node.
  double median_s = 124;
  double quartile_high_s = 237;
  double idle_nodes_percent = 0.42;  ///< Nodes that are idle on average.
  double donate_ms = 500;            ///< From a gap's begin to the first answered call, by hooks.
  double planned_percent = 50;       ///< Gaps whose end Slurm has planned, so that leases end before it.
  double notice_ms = 3000;           ///< So long before a planned end nothing is lent any more.
  double pass_s = 30;                ///< Between two looks of Slurm for jobs that fit a gap.
  double pilot_start_ms = 2000;      ///< From a pilot's start to its first answered call.
  double replenish_s = 10;           ///< Between two looks of the replenisher.
  unsigned queued = 2;               ///< Pilots of each length that wait.
};

/// Node-seconds, which are core-seconds when all nodes have as many cores.
struct Surface {
  std::uint64_t gaps = 0;
  double idle_s = 0;
  double lent_s = 0;  ///< Leased or ready to be.
  std::uint64_t pilots = 0;

  [[nodiscard]] double share() const noexcept { return idle_s > 0 ? lent_s / idle_s : 0; }
};

struct Gap {
  double begin_s = 0;
  double end_s = 0;
  bool planned = false;
};

/// Of the logarithm of a gap's length.
[[nodiscard]] double spread_of(const ReplayOptions& options) noexcept;

/// The gaps of all nodes by their begin: lengths lognormal through the median and, as well as one spread can,
/// the quartiles; busy times between them exponential. The same seed gives the same gaps.
[[nodiscard]] std::vector<Gap> make_gaps(const ReplayOptions& options);

[[nodiscard]] Surface replay_hooks(const ReplayOptions& options, const std::vector<Gap>& gaps);
/// At each pass a free node of a gap gets the longest waiting pilot that ends before a planned end, or the
/// shortest that waits. @param lengths_s Of the pilots, the longest first.
[[nodiscard]] Surface replay_pilots(const ReplayOptions& options, const std::vector<Gap>& gaps,
                                    const std::vector<double>& lengths_s);

}  // namespace sublet::bench::harvest
