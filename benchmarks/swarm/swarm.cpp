#include <sys/resource.h>

#include <algorithm>
#include <stdexcept>

#include "benchmarks/swarm/node.hpp"

namespace sublet::bench {
namespace {

constexpr std::size_t starting_max = 200;  // A listener's queue is short.

}  // namespace

std::uint64_t raise_open_files(std::uint64_t wanted) {
  rlimit bound{};
  if (getrlimit(RLIMIT_NOFILE, &bound) != 0) return 0;
  if (bound.rlim_max < wanted) {
    const rlimit higher{wanted, wanted};
    if (setrlimit(RLIMIT_NOFILE, &higher) == 0) return wanted;
  }
  bound.rlim_cur = bound.rlim_max;
  static_cast<void>(setrlimit(RLIMIT_NOFILE, &bound));
  return bound.rlim_cur;
}

Swarm::Swarm(Loop& loop, const Target& target, const NodeShape& shape, std::uint32_t nodes)
    : loop_(loop), shape_(shape) {
  const std::uint64_t wanted = std::uint64_t{2} * nodes + files_besides;
  if (const std::uint64_t have = raise_open_files(wanted); have < wanted) {
    throw std::runtime_error(std::to_string(nodes) + " nodes need " + std::to_string(wanted) +
                             " open files and the limit is " + std::to_string(have) +
                             ": raise it (ulimit -Hn) or take fewer --nodes");
  }
  for (std::uint32_t i = 0; i < nodes; ++i) {
    nodes_.emplace_back(loop_, target, shape_, counts_, i);
  }
}

bool Swarm::start(TimePoint deadline) {
  for (std::size_t begun = 0; begun < nodes_.size();) {
    const std::size_t end = std::min(begun + starting_max, nodes_.size());
    for (std::size_t i = begun; i < end; ++i) nodes_[i].start();
    if (!loop_.run([&] { return counts_.registered >= end; }, deadline)) return false;
    begun = end;
  }
  for (SimNode& node : nodes_) by_id_[node.id()] = &node;
  return settle(deadline);
}

bool Swarm::settle(TimePoint deadline) {
  return loop_.run(
      [&] { return std::all_of(nodes_.begin(), nodes_.end(), [](const SimNode& n) { return n.settled(); }); },
      deadline);
}

void Swarm::serve(std::uint64_t node, std::uint32_t worker, std::uint64_t lease) {
  if (const auto known = by_id_.find(node); known != by_id_.end()) known->second->serve(worker, lease);
}

std::size_t Swarm::registered() const {
  return static_cast<std::size_t>(
      std::count_if(nodes_.begin(), nodes_.end(), [](const SimNode& node) { return node.id() != 0; }));
}

std::size_t Swarm::serving() const {
  std::size_t all = 0;
  for (const SimNode& node : nodes_) all += node.serving();
  return all;
}

}  // namespace sublet::bench
