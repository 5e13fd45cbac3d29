#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "runtime/lease/rows.hpp"

namespace sublet::lease {

/// One worker process as the manager sees it. It holds its cores and memory from the grant until its
/// node says that it is gone or, untouched, ready again: no core is promised twice.
struct Worker {
  enum class State : std::uint8_t {
    ready,    ///< Free to be granted.
    granted,  ///< In an active lease; its client has not come yet, as far as the node has said.
    serving,  ///< In an active lease; its client has come.
    ending,   ///< Its lease has ended or replaced it, and the node has been told.
  };
  static constexpr std::size_t states = 4;

  api::WorkerInfo info;
  State state = State::ready;
  bool foreign = false;  ///< ending: it serves what this manager did not grant; what it holds is unknown.
  bool listed_ready = false;  ///< In the node's last list.
  std::uint8_t heard_since =
      0;                   ///< ending: heartbeats that list it as ready since the node took the command.
  std::uint32_t list = 0;  ///< The node's last list that names it.
  std::uint32_t cores = 0;
  std::uint32_t gpus = 0;
  std::uint64_t memory_bytes = 0;
  LeaseId lease = 0;
  Time since{};                    ///< Of the grant.
  std::uint64_t end_sequence = 0;  ///< ending: the command that told the node.
  std::string transport;           ///< By which its client came, as the node has said; empty: not yet.
};

/// Cores, memory and GPUs: what a node has, what is held, what is free.
struct Resources {
  std::uint32_t cores = 0;
  std::uint32_t gpus = 0;
  std::uint64_t memory_bytes = 0;

  [[nodiscard]] bool covers(const Resources& need) const noexcept {
    return cores >= need.cores && gpus >= need.gpus && memory_bytes >= need.memory_bytes;
  }
  [[nodiscard]] bool operator==(const Resources&) const noexcept = default;
  Resources& operator+=(const Resources& other) noexcept {
    cores += other.cores;
    gpus += other.gpus;
    memory_bytes += other.memory_bytes;
    return *this;
  }
  Resources& operator-=(const Resources& other) noexcept {
    cores -= other.cores;
    gpus -= other.gpus;
    memory_bytes -= other.memory_bytes;
    return *this;
  }
};

/// What the owner of the nodes, such as Slurm, wants of one.
struct SiteOrder {
  std::string why;          ///< In words; empty: it wants nothing.
  bool cordon = false;      ///< No new leases; those it has run out as they are now.
  std::optional<Time> end;  ///< What it lends is back by then.

  [[nodiscard]] bool operator==(const SiteOrder&) const = default;
};

/// One registration of a node.
struct Node {
  NodeId id = 0;
  api::NodeRegistration about;
  SecretKey key{};
  bool cordoned = false;
  bool drain_ordered = false;
  bool drain_said = false;
  bool lost = false;
  bool said_all = false;  ///< Since this manager knows it: what `unchanged` refers to.
  Time heard{};
  Time probation_end{};  ///< Not granted before.
  SiteOrder site;
  Time site_end = Time::max();  ///< By the site's order.
  Time own_end = Time::max();   ///< As its agent has said.
  bool closed = false;          ///< It ends too soon to be granted.
  Time end_step{};              ///< When its end is looked at again; 0: not.
  Resources held;
  std::uint32_t foreign = 0;  ///< Workers.
  std::uint32_t lists = 0;    ///< Heartbeats that said everything.
  std::map<WorkerId, Worker> workers;
  std::array<std::uint32_t, Worker::states> count{};  ///< Workers by state.
  std::map<FunctionId, std::set<WorkerId>> ready;     ///< By the function that they have loaded; 0: none.
  std::deque<api::Command> commands;                  ///< Not yet taken by the node.
  std::uint64_t sequence = 0;                         ///< Of the newest command.
  std::uint64_t taken = 0;                            ///< The newest command that the node said it has.

  [[nodiscard]] bool draining() const noexcept { return drain_ordered || drain_said; }
  /// When it lends nothing any more.
  [[nodiscard]] Time end() const noexcept { return std::min(site_end, own_end); }
  [[nodiscard]] bool on_probation() const noexcept { return probation_end != Time{}; }
  [[nodiscard]] bool admits() const noexcept {
    return !lost && !cordoned && !site.cordon && !closed && !draining() && !on_probation() && foreign == 0;
  }
  [[nodiscard]] std::uint32_t count_of(Worker::State state) const noexcept {
    return count[static_cast<std::size_t>(state)];
  }
  [[nodiscard]] Resources total() const noexcept { return {about.cores, about.gpus, about.memory_bytes}; }
  [[nodiscard]] Resources free() const noexcept {
    const auto left = [](auto have, auto gone) { return have > gone ? have - gone : 0; };
    return {left(about.cores, held.cores), left(about.gpus, held.gpus),
            left(about.memory_bytes, held.memory_bytes)};
  }
  /// What a worker is counted with: the memory as asked, or its cores' share of the node's.
  [[nodiscard]] Resources counted(const api::LeaseRequest& request) const noexcept {
    return {
        request.cores, request.gpus,
        request.memory_bytes > 0 ? request.memory_bytes : about.memory_bytes / about.cores * request.cores};
  }
};

/// As NodeInfo has it.
[[nodiscard]] inline const char* state_name(const Node& node) noexcept {
  if (node.lost) return "lost";
  if (node.draining() || node.foreign > 0) return "draining";
  if (node.cordoned || node.site.cordon || node.closed) return "cordoned";
  return node.on_probation() ? "probation" : "up";
}

}  // namespace sublet::lease
