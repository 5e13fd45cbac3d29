#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>

#include "runtime/base/clock.hpp"
#include "runtime/base/digest.hpp"
#include "runtime/control/api.hpp"

namespace sublet::lease {

using NodeId = std::uint64_t;
using LeaseId = std::uint64_t;
using WorkerId = std::uint32_t;
using FunctionId = std::uint32_t;

/// The two clocks as one parameter: durations by the first, what crosses machines by the second.
struct Now {
  TimePoint steady;
  std::uint64_t unix_ms = 0;
};

/// One worker process as the manager sees it. It holds its cores and memory from the grant until its
/// node says that it is gone or, untouched, ready again: no core is promised twice.
struct Worker {
  enum class State {
    ready,    ///< Free to be granted.
    granted,  ///< In an active lease; its client has not come yet, as far as the node has said.
    serving,  ///< In an active lease; its client has come.
    ending,   ///< Its lease has ended or replaced it, and the node has been told.
  };
  api::WorkerInfo info;
  State state = State::ready;
  LeaseId lease = 0;
  bool foreign = false;  ///< ending: it serves what this manager did not grant; what it holds is unknown.
  std::uint32_t cores = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t end_sequence = 0;      ///< ending: the command that told the node.
  std::uint32_t heartbeats_since = 0;  ///< ending: listed as ready since the node took that command.
};

/// One registration of a node.
struct Node {
  NodeId id = 0;
  api::NodeRegistration about;
  SecretKey key{};
  bool drain_ordered = false;
  bool drain_said = false;
  bool lost = false;
  TimePoint heard;
  std::uint32_t cores_held = 0;
  std::uint64_t memory_held = 0;
  std::uint32_t foreign = 0;  ///< Workers.
  std::map<WorkerId, Worker> workers;
  std::deque<api::Command> commands;  ///< Not yet taken by the node.
  std::uint64_t sequence = 0;         ///< Of the newest command.
  std::uint64_t taken = 0;            ///< The newest command that the node said it has.

  [[nodiscard]] bool draining() const noexcept { return drain_ordered || drain_said; }
  [[nodiscard]] bool admits() const noexcept { return !lost && !draining() && foreign == 0; }
  [[nodiscard]] std::uint32_t cores_free() const noexcept {
    return about.cores > cores_held ? about.cores - cores_held : 0;
  }
  [[nodiscard]] std::uint64_t memory_free() const noexcept {
    return about.memory_bytes > memory_held ? about.memory_bytes - memory_held : 0;
  }
  /// What a worker of `cores` is counted with: as asked, or its cores' share of the node.
  [[nodiscard]] std::uint64_t memory_for(std::uint32_t cores, std::uint64_t asked_bytes) const noexcept {
    return asked_bytes > 0 ? asked_bytes : about.memory_bytes / about.cores * cores;
  }

  void hold(Worker& worker, LeaseId lease, std::uint32_t cores, std::uint64_t memory_bytes) noexcept {
    worker.state = Worker::State::granted;
    worker.lease = lease;
    worker.cores = cores;
    worker.memory_bytes = memory_bytes;
    cores_held += cores;
    memory_held += memory_bytes;
  }
  /// What the worker held is free; the worker itself is ready again, or the caller removes it.
  void give_back(Worker& worker) noexcept {
    cores_held -= worker.cores;
    memory_held -= worker.memory_bytes;
    foreign -= worker.foreign ? 1 : 0;
    worker = Worker{.info = std::move(worker.info)};
  }
};

}  // namespace sublet::lease
