#pragma once

#include <cstdint>
#include <string>

namespace sublet::bench {

struct ScaleOptions {
  std::uint32_t nodes = 0;
  std::uint32_t leases = 0;
  std::uint32_t ttl_s = 0;    ///< Of each; renewed at half.
  std::uint32_t seconds = 0;  ///< Of each window.
  std::uint32_t probes = 0;   ///< Grants and releases a second, for their times.
  std::string state_dir;      ///< Empty: a temporary one, removed.
};

/// What one window of steady load has shown.
struct ScaleWindow {
  double manager_cpu = 0;  ///< Cores.
  double bench_cpu = 0;
  double heartbeats_per_second = 0;
  double heartbeat_p99_us = 0;
  double renewals_per_second = 0;
  double renewal_p99_us = 0;
  std::uint64_t probes = 0;
  double grant_p50_us = 0;
  double grant_p99_us = 0;
  double release_p50_us = 0;
  double release_p99_us = 0;
  std::uint64_t rss_bytes = 0;
  std::uint64_t pss_bytes = 0;
};

struct ScaleReport {
  std::uint32_t nodes = 0;  ///< Fewer than asked for when the limit of open files does not allow more.
  std::string state_on;     ///< File system.
  std::uint64_t state_bytes = 0;
  double register_s = 0;
  double fill_s = 0;
  ScaleWindow before;
  double ready_ms = 0;        ///< From the start after kill -9 to a /readyz that says ok.
  double first_grant_ms = 0;  ///< To the first lease granted.
  ScaleWindow after;
  std::uint64_t registered_again = 0;  ///< Nodes that the manager did not know after the restart.
  std::uint64_t leases_lost = 0;       ///< Leases that had ended after the restart.
};

/// Many simulated nodes and live leases against one manager, then kill -9 and restart. Throws
/// std::exception.
[[nodiscard]] ScaleReport measure_scale(const ScaleOptions& options);

}  // namespace sublet::bench
