#pragma once

#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/lease/node.hpp"

namespace sublet::lease {

inline constexpr const char* placement_spread = "spread";
inline constexpr const char* placement_pack = "pack";

/// A lease request whose function has been looked up.
struct Ask {
  FunctionId function = 0;
  std::string function_name;  ///< "name@version"
  api::LeaseRequest request;  ///< Its placement is stated.
};

/// The nodes that may be granted from, in order of their free cores, for each function that a ready worker
/// has loaded (0: none). So that a grant need not look at every node.
class Candidates {
 public:
  /// After every change of what the node admits, has free or has ready.
  void update(const Node& node);
  void remove(NodeId node);

  using Order = std::set<std::pair<std::uint32_t, NodeId>>;  ///< Free cores first.
  /// Nodes with a ready worker that has `function` loaded; null when there is none.
  [[nodiscard]] const Order* with(FunctionId function) const;

 private:
  struct At {
    std::uint32_t cores = 0;
    std::vector<FunctionId> functions;
  };
  std::unordered_map<NodeId, At> at_;
  std::map<FunctionId, Order> orders_;
};

struct Pick {
  NodeId node = 0;
  WorkerId worker = 0;
};

/// Chooses `workers` ready workers for the ask and changes nothing; fewer, when there is no room for all. A
/// worker that has the function loaded comes first, then one that has none; one with another function
/// never. Before that counts the preferred transport that a worker offers: a lease is granted once and called
/// often. Among nodes "spread" takes the one with most free cores: a lease over the whole pool gets the
/// most memory bandwidth and NIC for each worker and loses the fewest workers when one node is taken back.
/// "pack" takes the fullest node with room: large leases and jobs of the nodes' owner find whole nodes.
[[nodiscard]] std::vector<Pick> place(const std::map<NodeId, Node>& nodes, const Candidates& candidates,
                                      const Ask& ask, std::uint32_t workers);

/// Whether the worker offers a transport that the wishes allow.
[[nodiscard]] bool offers(const api::WorkerInfo& worker, const api::Transports& wishes);

}  // namespace sublet::lease
