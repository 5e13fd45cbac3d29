#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/clock.hpp"

namespace sublet::agent {

/// How one agent runs; defaults are for a node that lends all it has.
struct Options {
  std::string manager;
  std::string name;
  std::map<std::string, std::string> listen;  ///< Transport to listen() address; shm's is each worker's own.
  std::vector<int> cores;               ///< Core numbers to lend; a number twice: oversubscribed by order.
  std::uint64_t memory_bytes = 0;       ///< To lend in all.
  std::vector<int> lend_cores;          ///< Of `cores` the places of those that are lent at the start.
  std::uint64_t lend_memory_bytes = 0;  ///< Of `memory_bytes`, at the start.
  std::string state_dir;
  std::uint32_t warm = 0;          ///< Idle workers without a function.
  std::uint32_t warm_loaded = 0;   ///< Idle workers for each recently used function.
  std::uint64_t region_bytes = 0;  ///< Registered input memory of each worker.
  std::chrono::milliseconds drain{0};
  std::chrono::milliseconds goodbye{0};  ///< At the end, for the manager to hear of it: this long twice.
  std::optional<TimePoint> until;        ///< When the node lends nothing any more.
  std::string worker_program;
};

}  // namespace sublet::agent
