#pragma once

#include <map>
#include <string>
#include <vector>

#include "runtime/base/result.hpp"
#include "runtime/lease/node.hpp"

namespace sublet::lease {

/// What each of `workers` workers must have.
struct Need {
  std::uint32_t workers = 1;
  std::uint32_t cores = 1;
  std::uint64_t memory_bytes = 0;  ///< 0: the share of the cores.
  FunctionId function = 0;
  std::vector<std::string> transports;  ///< One of these at least; empty: any.
};

struct Pick {
  Node* node = nullptr;
  Worker* worker = nullptr;
};

/// Chooses ready workers and changes nothing. A worker that has the function loaded comes first, then one
/// that has none; one with another function never. Among nodes the one with most free cores comes first:
/// a lease spread over the pool gets the most memory bandwidth and NIC for each worker, and loses the
/// fewest workers when one node is taken back.
/// @retval Errc::no_capacity What is missing, in numbers.
[[nodiscard]] Result<std::vector<Pick>> place(std::map<NodeId, Node>& nodes, const Need& need);

}  // namespace sublet::lease
