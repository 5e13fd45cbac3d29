#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "benchmarks/swarm/flow.hpp"
#include "runtime/control/api.hpp"

namespace sublet::bench {

struct NodeShape {
  std::uint32_t cores = 1;
  std::uint32_t ready = 1;            ///< Workers kept ready for a lease.
  std::chrono::milliseconds birth{};  ///< From a worker's end to the heartbeat that tells of its successor.
  bool light = true;                  ///< Says `unchanged` when nothing is new, as an agent does.
};

/// Of all nodes of a swarm.
struct NodeCounts {
  std::uint64_t registered = 0;
  std::uint64_t heartbeats = 0;
  std::uint64_t resends = 0;
  std::uint64_t commands = 0;
  std::uint64_t lost = 0;     ///< Connections with a request under way.
  std::uint64_t refused = 0;  ///< Answers that were no success.
  std::vector<float> heartbeat_us;
};

/// A node as the manager sees it through the API, without worker processes: registers, reports as an agent
/// does (at once when something has changed, else every second), holds the long request for commands open,
/// and ends and replaces the workers of leases that end. Comes back by itself when the manager was away.
class SimNode : private Flow::Owner {
 public:
  /// @param number Of the swarm's nodes: its name, its address and its chances follow from it.
  SimNode(Loop& loop, const Target& target, const NodeShape& shape, NodeCounts& counts, std::uint32_t number);

  void start();
  /// The client of `lease` has come to `worker`.
  void serve(std::uint32_t worker, std::uint64_t lease);
  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
  /// The manager has been told all there is.
  [[nodiscard]] bool settled() const noexcept { return id_ != 0 && !changed_ && !telling_; }
  [[nodiscard]] std::size_t serving() const noexcept { return serving_.size(); }

 private:
  void on_reply(Flow& flow, unsigned status, std::string_view body) override;
  void on_lost(Flow& flow) override;
  void on_registered(std::string_view body);
  void on_heard(unsigned status, std::string_view body);
  void on_commands(unsigned status, std::string_view body);
  void end_lease(std::uint64_t lease);
  void refill();
  void report();
  void report_at(TimePoint time);
  void poll_commands();
  void send_registration();
  [[nodiscard]] std::string heartbeat() const;
  [[nodiscard]] std::uint64_t usage_id(std::uint32_t worker) const noexcept;
  [[nodiscard]] SteadyClock::duration back_off(int failures);
  [[nodiscard]] std::chrono::milliseconds somewhen();

  Loop& loop_;
  const NodeShape& shape_;
  NodeCounts& counts_;
  std::string name_;
  std::minstd_rand random_;
  Flow reports_;
  Flow commands_;
  std::uint64_t id_ = 0;
  std::uint32_t next_worker_ = 1;
  std::set<std::uint32_t> ready_;
  std::map<std::uint32_t, std::uint64_t> serving_;  // Worker to lease.
  std::unordered_map<std::uint64_t, std::vector<std::uint32_t>> leases_;
  std::vector<api::Heartbeat::Ended> ended_;
  std::size_t ended_sent_ = 0;
  bool changed_ = true;  // The manager has not been told.
  bool first_ = true;    // Its heartbeats have not found their place in the second yet.
  bool known_ = false;   // The manager has the lists and does not ask for them.
  bool said_all_ = false;
  bool telling_ = false;    // It is being told.
  std::uint64_t seen_ = 0;  // The newest command.
  TimePoint report_due_ = TimePoint::max();
  int report_failures_ = 0;
  int command_failures_ = 0;
};

/// Many of them.
class Swarm {
 public:
  /// Throws std::runtime_error when the limit of open files cannot be raised far enough.
  Swarm(Loop& loop, const Target& target, const NodeShape& shape, std::uint32_t nodes);

  /// Registers all, a bounded number at a time. False when `deadline` comes first.
  [[nodiscard]] bool start(TimePoint deadline);
  /// Waits until the manager has been told all there is. False when `deadline` comes first.
  [[nodiscard]] bool settle(TimePoint deadline);
  /// Hands each worker of a grant to its node.
  void serve(std::uint64_t node, std::uint32_t worker, std::uint64_t lease);
  [[nodiscard]] std::size_t registered() const;
  [[nodiscard]] std::size_t serving() const;
  NodeCounts& counts() noexcept { return counts_; }

 private:
  Loop& loop_;
  NodeShape shape_;
  NodeCounts counts_;
  std::deque<SimNode> nodes_;
  std::unordered_map<std::uint64_t, SimNode*> by_id_;
};

/// Open files of a program with a swarm, besides two for each node.
inline constexpr std::uint64_t files_besides = 100;

/// Lets this process, and what it starts, open so many files: raises the hard limit too where it may.
/// What it is afterwards.
[[nodiscard]] std::uint64_t raise_open_files(std::uint64_t wanted);

}  // namespace sublet::bench
