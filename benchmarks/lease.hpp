#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "benchmarks/swarm/lease_client.hpp"
#include "benchmarks/swarm/node.hpp"

namespace sublet::bench {

struct LeaseOptions {
  std::string manager;            ///< URL of a running one; empty: one is started.
  int manager_pid = 0;            ///< Of a running one, for its CPU share; 0: not told.
  std::string state_dir;          ///< Of the one that is started; empty: a temporary one, removed.
  std::vector<unsigned> clients;  ///< How many at once; one measurement each in every round.
  std::uint32_t rounds = 0;
  std::uint32_t milliseconds = 0;  ///< Of each measurement.
  std::uint32_t nodes = 0;         ///< Simulated.
  std::uint32_t workers = 0;       ///< Ready on each.
  std::uint32_t birth_ms = 0;
};

/// For one number of clients: medians over the rounds.
struct LeaseFigures {
  unsigned clients = 0;
  double grants_per_second = 0;
  double grants_low = 0;  ///< First and third quartile.
  double grants_high = 0;
  double releases_per_second = 0;
  double grant_p50_us = 0;
  double grant_p99_us = 0;
  double release_p50_us = 0;
  double release_p99_us = 0;
  double refused_percent = 0;  ///< Of the requests for a lease.
  double manager_cpu = 0;      ///< Cores.
  double bench_cpu = 0;        ///< This program's, nodes and clients.
};

struct LeaseReport {
  std::string state_on;  ///< File system; empty when the manager was given.
  std::vector<LeaseFigures> figures;
};

/// Measures closed loops of grant and release over kept connections. Throws std::exception.
[[nodiscard]] LeaseReport measure_leases(const LeaseOptions& options);

}  // namespace sublet::bench
