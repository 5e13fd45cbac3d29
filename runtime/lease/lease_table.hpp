#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/result.hpp"
#include "runtime/control/api.hpp"
#include "runtime/lease/node.hpp"
#include "runtime/lease/placement.hpp"
#include "runtime/lease/rows.hpp"
#include "runtime/lease/tenants.hpp"

namespace sublet::lease {

/// What the site has decided.
struct Policy {
  std::string placement = placement_spread;  ///< For requests that do not say.
  std::map<std::string, TenantPolicy> tenants;
};

/// Totals since the start, for /metrics.
struct Counts {
  std::uint64_t granted = 0;
  std::uint64_t renewed = 0;
  std::uint64_t replaced = 0;
  std::map<std::string, std::uint64_t> ended;        ///< By reason.
  std::map<std::string, std::uint64_t> connections;  ///< Clients that came to their workers, by transport.
  std::uint64_t nodes_lost = 0;
  std::uint64_t workers_lost = 0;        ///< Of active leases.
  std::uint64_t workers_taken_back = 0;  ///< Of active leases, because their node's time was over.
};

/// What others wait for and what has happened to it since the last take_changes().
struct Changes {
  bool capacity = false;            ///< A request that was refused may fit now.
  std::set<NodeId> commands;        ///< Nodes that have a command to take, or are known no more.
  std::vector<std::string> events;  ///< For the log.
};

/// Why there is no room, and when there may be.
struct Shortage {
  std::string text;
  std::optional<std::chrono::milliseconds> retry_after;  ///< By the expiries known now.
};

/// Which leases to list.
struct LeaseFilter {
  std::string tenant;  ///< Empty: all.
  std::string state;   ///< "active", "ended"; empty: both.
  LeaseId before = 0;  ///< Only older ones; 0: from the newest.
  std::size_t limit = 1000;
};

/// Nodes, workers, leases and tenants: a pure state machine. Time and randomness are parameters, nothing is
/// sent and nothing is written: what the nodes must be told lies in their command queues, what must be
/// written down in take_rows(). Thread safety: one thread at a time.
class LeaseTable {
 public:
  /// @param first_id Ids of nodes and leases start here: above every one that was ever given out.
  explicit LeaseTable(std::uint64_t first_id, Policy policy = {});
  /// Takes up what another table had handed out. Nodes get `grace` more to be heard from.
  void restore(Saved saved, Time now, std::chrono::milliseconds grace);

  /// A name that is registered already loses its old registration, and that its workers.
  [[nodiscard]] Result<NodeId> register_node(const api::NodeRegistration& about, const SecretKey& key,
                                             Time now);
  /// True: the node must say everything in its next heartbeat. not_found tells it to register again.
  [[nodiscard]] Result<bool> heartbeat(NodeId id, const api::Heartbeat& said, Time now);
  /// The node leaves in good order.
  [[nodiscard]] Status remove_node(NodeId id, Time now);
  /// Both hold for the node's name, also when it registers again. A drained one ends what it has.
  [[nodiscard]] Result<api::NodeInfo> set_draining(NodeId id, bool draining, Time now);
  [[nodiscard]] Result<api::NodeInfo> set_cordoned(NodeId id, bool cordoned, Time now);
  /// What the owner of the node wants now, instead of what it wanted before. Not written down: whoever gives
  /// such orders repeats them to a new registration and after a restart.
  [[nodiscard]] Status set_site_order(NodeId id, const SiteOrder& order, Time now);
  /// The commands after `after`; the node has those up to it, which are forgotten.
  [[nodiscard]] Result<api::Commands> commands_after(NodeId id, std::uint64_t after);
  /// Tells every node about a function.
  void announce_function(const std::string& kind, FunctionId function);
  void announce_function_to(NodeId id, const std::string& kind, FunctionId function);

  /// @retval Errc::no_capacity No room, or the tenant's quota is used up; shortage() has the details.
  [[nodiscard]] Result<api::LeaseGrant> grant(const Ask& ask, Time now);
  [[nodiscard]] Result<api::LeaseGrant> renew(LeaseId id, std::uint64_t ttl_ms, Time now);
  /// The old worker is out of the lease even when no other fits yet: ask again with the same. Asked again
  /// after it was replaced, the answer is the same too.
  [[nodiscard]] Result<api::LeaseGrant> replace(LeaseId id, NodeId node, WorkerId worker, Time now);
  /// @param reason "released", "revoked" or "not_recorded". A lease that has ended keeps its first reason.
  [[nodiscard]] Result<api::LeaseInfo> end(LeaseId id, const std::string& reason, Time now);

  /// Why grant(ask) or, with a lease, replace() found no room. Looks at every node.
  [[nodiscard]] Shortage shortage(const Ask& ask, Time now) const;
  [[nodiscard]] Shortage shortage(LeaseId id, Time now) const;

  /// Expires leases, loses nodes, ends probations.
  void tick(Time now);
  /// The manager itself was away: no node is to blame for silence up to `now`.
  void forgive_silence(Time now);

  /// The newest first.
  [[nodiscard]] api::Leases leases(const LeaseFilter& filter = {}) const;
  [[nodiscard]] Result<api::LeaseInfo> lease(LeaseId id) const;
  [[nodiscard]] api::Nodes nodes(Time now) const;
  [[nodiscard]] Result<api::NodeInfo> node(NodeId id, Time now) const;
  [[nodiscard]] const std::map<std::string, Tenant>& tenants() const noexcept { return tenants_; }
  /// What `tenant` holds of the pool, by its share: the smaller, the sooner it is served.
  [[nodiscard]] double claim(const std::string& tenant) const;
  [[nodiscard]] bool uses_function(FunctionId function) const { return users_.contains(function); }
  /// Of the next node or lease.
  [[nodiscard]] std::uint64_t next_id() const noexcept { return next_id_; }
  [[nodiscard]] std::size_t active() const noexcept { return leases_.size(); }
  [[nodiscard]] const Counts& counts() const noexcept { return counts_; }
  /// Workers that have their client now, by transport.
  [[nodiscard]] const std::map<std::string, std::uint64_t>& connected() const noexcept { return connected_; }
  [[nodiscard]] const std::map<NodeId, Node>& state() const noexcept { return nodes_; }
  [[nodiscard]] Changes take_changes() { return std::exchange(changes_, {}); }
  [[nodiscard]] bool dirty() const noexcept;
  [[nodiscard]] Rows take_rows();

 private:
  struct Place {
    NodeId node = 0;
    WorkerId worker = 0;
    bool live = false;  ///< Otherwise gone, and waiting to be replaced.
    HeldKey before;     ///< Whom it replaced: asked for again it is the same answer.
  };
  struct Lease {
    LeaseId id = 0;
    Ask ask;
    std::uint32_t tenant = 0;
    Time granted{};
    Time expiry{};
    bool node_lost = false;
    std::uint32_t workers_used = 0;
    std::chrono::nanoseconds lease_time{};  ///< Of workers that are out of it.
    std::vector<Place> places;
    std::vector<Lender> lent;  ///< Not handed out in a row yet.
  };
  /// How often a node of this name was lost lately.
  struct Flaps {
    std::uint32_t losses = 0;
    Time last{};
  };
  struct Orders {
    bool cordoned = false;
    bool drained = false;
  };

  [[nodiscard]] Result<Node*> find_node(NodeId id);
  [[nodiscard]] Result<Lease*> find_active(LeaseId id, Time now);
  [[nodiscard]] Result<Tenant*> tenant_named(const std::string& name);
  void leave_tenant(const Lease& lease);
  void occupy(Lease& lease, const Pick& pick, Place& place, Time now);
  void vacate(Lease& lease, Place& place, Time now);
  [[nodiscard]] api::LeaseGrant grant_of(const Lease& lease, const Place* only) const;
  [[nodiscard]] api::GrantedWorker shown(const Lease& lease, const Place& place) const;
  [[nodiscard]] std::string token_of(const Lease& lease, const Place& place) const;
  [[nodiscard]] api::LeaseInfo info_of(const Lease& lease) const;
  [[nodiscard]] static LeaseRow row_of(Lease& lease);
  void end_lease(LeaseId id, const std::string& reason, Time now);
  void remember_ended(api::LeaseInfo last);

  // node_events.cpp
  void hear_lists(Node& node, const api::Heartbeat& said, Time now);
  void hear_capacity(Node& node, const Resources& capacity);
  void note_ended(Node& node, const api::Heartbeat& said);
  void hear_ready(Node& node, const api::WorkerInfo& info);
  void settle_ending(Node& node, Worker& worker);
  void hear_serving(Node& node, const api::Heartbeat::Serving& serving, Time now);
  void note_transport(Worker& worker, const std::string& transport);
  void forget_absent(Node& node, Time now);
  void worker_gone(Node& node, Worker& worker, bool with_node, Time now);
  void lose_node(Node& node, const std::string& why, Time now);
  void forget_node(NodeId id);
  void obey_orders(Node& node);
  void start_probation(Node& node, Time now);
  void tell_end(Node& node, LeaseId lease, const std::string& reason);
  std::uint64_t command(Node& node, api::Command what);

  // node_ends.cpp
  void follow_end(Node& node, Time now);
  void take_back(Node& node, Time now);
  void pass_ends(Time now);
  [[nodiscard]] Time last_expiry(const Node& node, Time now) const;

  // node_workers.cpp
  Worker& add_worker(Node& node, const api::WorkerInfo& info);
  void remove_worker(Node& node, WorkerId id);
  void hold(Node& node, Worker& worker, LeaseId lease, const Resources& share, Time now);
  void give_back(Node& node, Worker& worker);
  void set_state(Node& node, Worker& worker, Worker::State state);

  // restore.cpp
  void restore_node(const NodeRow& row, Time heard, std::uint64_t sequence);
  void restore_lease(LeaseRow& row);
  void restore_held(const HeldRow& row);
  void tell_ending();

  std::uint64_t next_id_;
  Policy policy_;
  std::map<NodeId, Node> nodes_;
  Candidates candidates_;
  Resources total_;  ///< Of nodes that are not lost.
  std::map<std::string, NodeId> names_;
  std::map<std::string, Orders> orders_;
  std::map<std::string, Flaps> flaps_;
  std::set<std::pair<Time, NodeId>> heard_;  ///< Nodes that are not lost, the most silent first.
  std::set<std::pair<Time, NodeId>> probations_;
  std::set<std::pair<Time, NodeId>> ends_;  ///< When a node's end is to be looked at.
  std::map<LeaseId, Lease> leases_;
  std::set<std::pair<Time, LeaseId>> expiries_;
  std::map<FunctionId, std::uint64_t> users_;  ///< Active leases of each function.
  std::map<std::string, Tenant> tenants_;      ///< With something held or a policy of their own.
  std::uint32_t next_tenant_ = 1;
  std::deque<LeaseId> ended_order_;
  std::map<LeaseId, api::LeaseInfo> ended_;
  Counts counts_;
  std::map<std::string, std::uint64_t> connected_;
  Changes changes_;

  std::set<NodeId> dirty_nodes_;
  std::set<std::string> dirty_orders_;
  std::set<LeaseId> dirty_leases_;
  std::set<HeldKey> dirty_held_;
  std::vector<LeaseRow> ended_rows_;
};

}  // namespace sublet::lease
