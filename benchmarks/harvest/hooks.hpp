#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "benchmarks/harvest/replay.hpp"

/// What the hooks of scripts/slurm cost a job, and how much idle time they lend, in real time.
namespace sublet::bench::harvest {

struct HookTimes {
  std::vector<double> nothing_ms;           ///< A program that does nothing, started as the hooks are.
  std::vector<double> prolog_undonated_ms;  ///< What a job waits longer on a node that is not donated,
  std::vector<double> prolog_idle_ms;       ///< that is donated and has no lease,
  std::vector<double> prolog_busy_ms;       ///< whose worker runs a call that outlasts the grace.
  std::vector<double> epilog_ms;
  std::vector<double> first_call_ms;  ///< From the epilog's begin to an answer.
};

/// Throws std::exception.
[[nodiscard]] HookTimes measure_hooks(unsigned rounds, unsigned cores, unsigned grace_ms);

struct LiveOptions {
  unsigned nodes = 0;  ///< Virtual.
  unsigned cores = 0;  ///< Of each.
  double minutes = 0;
  double busy_s = 0;  ///< A job's mean time.
  unsigned grace_ms = 0;
  ReplayOptions gaps;  ///< Seed and quartiles are read.
};

struct LiveSurface {
  Surface surface;  ///< Idle time begins with the epilog and ends with the prolog.
  double looks_per_second = 0;
  std::vector<double> prolog_ms;
};

/// Jobs come and go on all nodes at once; the manager is asked all the time how many cores of each have a
/// worker that is ready or leased. A gap that has not ended when time is up counts until then. Throws
/// std::exception.
[[nodiscard]] LiveSurface replay_live(const LiveOptions& options);

}  // namespace sublet::bench::harvest
