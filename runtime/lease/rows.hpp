#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/digest.hpp"
#include "runtime/control/api.hpp"
#include "runtime/lease/time.hpp"

/// What outlives the manager, as the lease table hands it out to be written down and takes it back.
namespace sublet::lease {

using NodeId = std::uint64_t;
using LeaseId = std::uint64_t;
using WorkerId = std::uint32_t;
using FunctionId = std::uint32_t;
using HeldKey = std::pair<NodeId, WorkerId>;

/// A registration. Its key is a secret: whoever has it can make tokens for the node's workers.
struct NodeRow {
  NodeId id = 0;
  api::NodeRegistration about;
  SecretKey key{};
};

/// What an operator has ordered for a node, by its name: it holds for later registrations too.
struct OrderRow {
  std::string name;
  bool cordoned = false;
  bool drained = false;
};

/// One worker's place in a lease.
struct PlaceRow {
  HeldKey worker;  ///< Lost, when it is not held under this lease.
  HeldKey before;  ///< The one that it replaced; {0, 0}: none.
};

/// A node as it accounts for its workers: under its name, whatever its registration, or through another agent
/// of its machine, which takes over what a killed one has left.
struct Lender {
  std::string name;
  std::string machine;
};

struct LeaseRow {
  LeaseId id = 0;
  FunctionId function = 0;
  std::string function_name;
  api::LeaseRequest request;
  Time granted{};
  Time expiry{};
  bool node_lost = false;
  std::uint32_t workers_used = 0;         ///< Processes that were ever part of it.
  std::chrono::nanoseconds lease_time{};  ///< Of workers that are out of it, each from its grant on.
  std::string reason;                     ///< Empty while active.
  Time ended{};
  std::vector<PlaceRow> places;
  std::vector<Lender> lent;  ///< Nodes that have given it a worker since its last row: they are added.
};

/// A worker that holds cores, in an active lease or until its node has ended it.
struct HeldRow {
  HeldKey key;
  LeaseId lease = 0;
  std::uint32_t cores = 0;
  std::uint64_t memory_bytes = 0;
  std::uint32_t gpus = 0;
  bool ending = false;
  FunctionId loaded = 0;
  Time since{};
  std::map<std::string, std::string> endpoints;
};

/// Everything that was written, for the restart.
struct Saved {
  std::vector<NodeRow> nodes;
  std::vector<OrderRow> orders;
  std::vector<LeaseRow> leases;  ///< Active ones, and the newest of those that have ended, by id.
  std::vector<HeldRow> held;
};

/// What has changed since the last take_rows(): the rows as they are now. Writing them in any order in one
/// transaction, and rows of one key in the order in which they were taken, gives the table's state.
struct Rows {
  std::vector<NodeRow> nodes;
  std::vector<NodeId> nodes_gone;
  std::vector<OrderRow> orders;  ///< Neither cordoned nor drained: gone.
  std::vector<LeaseRow> leases;
  std::vector<HeldRow> held;
  std::vector<HeldKey> held_gone;

  [[nodiscard]] bool empty() const noexcept {
    return nodes.empty() && nodes_gone.empty() && orders.empty() && leases.empty() && held.empty() &&
           held_gone.empty();
  }
};

}  // namespace sublet::lease
