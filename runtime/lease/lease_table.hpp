#pragma once

#include <deque>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/base/result.hpp"
#include "runtime/control/api.hpp"
#include "runtime/lease/node.hpp"
#include "runtime/lease/placement.hpp"

namespace sublet::lease {

/// A lease request whose function has been looked up.
struct Ask {
  FunctionId function = 0;
  std::string function_name;  ///< "name@version"
  api::LeaseRequest request;
};

/// Totals since the start, for /metrics.
struct Counts {
  std::uint64_t granted = 0;
  std::uint64_t renewed = 0;
  std::uint64_t replaced = 0;
  std::map<std::string, std::uint64_t> ended;  ///< By reason.
  std::uint64_t nodes_lost = 0;
  std::uint64_t workers_lost = 0;  ///< Of active leases.
};

/// What others wait for and what has happened to it since the last take_changes().
struct Changes {
  bool capacity = false;            ///< A request that was refused may fit now.
  std::set<NodeId> commands;        ///< Nodes that have a command to take, or are known no more.
  std::vector<std::string> events;  ///< For the log.
};

/// Nodes, workers and leases: a pure state machine. Time and randomness are parameters, nothing is sent;
/// what the nodes must be told lies in their command queues. Thread safety: one thread at a time.
class LeaseTable {
 public:
  /// @param first_id Ids of nodes and leases start here. A restarted manager starts higher, so that what
  ///                 outlived its predecessor is never taken for its own.
  explicit LeaseTable(std::uint64_t first_id) : next_id_(first_id) {}

  /// A name that is registered already loses its old registration, and that its workers.
  [[nodiscard]] Result<NodeId> register_node(const api::NodeRegistration& about, const SecretKey& key,
                                             Now now);
  /// not_found tells the node to register again.
  [[nodiscard]] Status heartbeat(NodeId id, const api::Heartbeat& said, Now now);
  [[nodiscard]] Status remove_node(NodeId id);
  [[nodiscard]] Result<api::NodeInfo> set_draining(NodeId id, bool draining, Now now);
  /// The commands after `after`; the node has those up to it, which are forgotten.
  [[nodiscard]] Result<api::Commands> commands_after(NodeId id, std::uint64_t after);
  /// Tells every node about a function.
  void announce_function(const std::string& kind, FunctionId function);
  void announce_function_to(NodeId id, const std::string& kind, FunctionId function);

  [[nodiscard]] Result<api::LeaseGrant> grant(const Ask& ask, Now now);
  [[nodiscard]] Result<api::LeaseGrant> renew(LeaseId id, std::uint64_t ttl_ms, Now now);
  /// The old worker is out of the lease even when no other fits yet: ask again with the same.
  [[nodiscard]] Result<api::LeaseGrant> replace(LeaseId id, NodeId node, WorkerId worker, Now now);
  /// @param reason "released" or "revoked". A lease that has ended already keeps its first reason.
  [[nodiscard]] Result<api::LeaseInfo> end(LeaseId id, const std::string& reason);

  /// Expires leases and loses nodes.
  void tick(Now now);
  /// The manager itself was away: no node is to blame for silence up to `now`.
  void forgive_silence(Now now);

  [[nodiscard]] api::Leases leases() const;
  [[nodiscard]] Result<api::LeaseInfo> lease(LeaseId id) const;
  [[nodiscard]] api::Nodes nodes(Now now) const;
  [[nodiscard]] Result<api::NodeInfo> node(NodeId id, Now now) const;
  [[nodiscard]] bool uses_function(FunctionId function) const { return users_.contains(function); }
  [[nodiscard]] std::size_t active() const noexcept { return leases_.size(); }
  [[nodiscard]] const Counts& counts() const noexcept { return counts_; }
  [[nodiscard]] const std::map<NodeId, Node>& state() const noexcept { return nodes_; }
  [[nodiscard]] Changes take_changes() { return std::exchange(changes_, {}); }

 private:
  struct Place {
    NodeId node = 0;
    WorkerId worker = 0;
    bool live = true;  ///< Otherwise gone, and waiting to be replaced.
    api::GrantedWorker shown;
  };
  struct Lease {
    LeaseId id = 0;
    Ask ask;
    std::uint32_t tenant = 0;
    TimePoint expiry;
    std::uint64_t expiry_ms = 0;
    bool node_lost = false;
    std::vector<Place> places;
  };

  [[nodiscard]] Result<Node*> find_node(NodeId id);
  [[nodiscard]] Result<Lease*> find_active(LeaseId id, Now now);
  [[nodiscard]] Result<std::uint32_t> tenant_number(const std::string& name);
  [[nodiscard]] Need need_of(const Lease& lease, std::uint32_t workers) const;
  void occupy(Lease& lease, const Pick& pick, Place& place);
  [[nodiscard]] api::LeaseGrant grant_of(const Lease& lease, const Place* only) const;
  [[nodiscard]] std::string token_of(const Lease& lease, const Place& place) const;
  [[nodiscard]] api::LeaseInfo info_of(const Lease& lease) const;

  void note_ended(const Node& node, const api::Heartbeat& said);
  void hear_ready(Node& node, const api::WorkerInfo& info);
  void hear_serving(Node& node, const api::Heartbeat::Serving& serving);
  void forget_absent(Node& node, const std::set<WorkerId>& present);
  void worker_gone(Node& node, Worker& worker, bool with_node);
  void lose_node(Node& node, const std::string& why);
  void end_lease(LeaseId id, const std::string& reason);
  void tell_end(Node& node, LeaseId lease, const std::string& reason);
  std::uint64_t command(Node& node, api::Command what);

  std::uint64_t next_id_;
  std::map<NodeId, Node> nodes_;
  std::map<std::string, NodeId> names_;
  std::set<std::pair<TimePoint, NodeId>> heard_;  ///< Nodes that are not lost, the most silent first.
  std::map<LeaseId, Lease> leases_;
  std::set<std::pair<TimePoint, LeaseId>> expiries_;
  std::map<FunctionId, std::uint64_t> users_;  ///< Active leases of each function.
  std::map<std::string, std::uint32_t> tenants_;
  std::deque<LeaseId> ended_order_;
  std::unordered_map<LeaseId, api::LeaseInfo> ended_;
  Counts counts_;
  Changes changes_;
};

}  // namespace sublet::lease
