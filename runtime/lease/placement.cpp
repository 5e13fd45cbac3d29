#include "runtime/lease/placement.hpp"

#include <algorithm>
#include <queue>

namespace sublet::lease {
namespace {

/// A node with what it can still give to this lease.
struct Candidate {
  Node* node = nullptr;
  std::uint32_t cores = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t memory_each = 0;
  std::vector<Worker*> loaded;
  std::vector<Worker*> generic;

  [[nodiscard]] bool fits(const Need& need) const noexcept {
    return (!loaded.empty() || !generic.empty()) && cores >= need.cores && memory_bytes >= memory_each;
  }
};

struct Worse {
  bool operator()(const Candidate* a, const Candidate* b) const noexcept {
    if (a->loaded.empty() != b->loaded.empty()) return a->loaded.empty();
    if (a->cores != b->cores) return a->cores < b->cores;
    return a->node->id > b->node->id;
  }
};

bool offers(const Worker& worker, const std::vector<std::string>& transports) {
  return transports.empty() ||
         std::any_of(transports.begin(), transports.end(),
                     [&](const std::string& name) { return worker.info.endpoints.contains(name); });
}

Candidate candidate_of(Node& node, const Need& need) {
  Candidate candidate{
      &node, node.cores_free(), node.memory_free(), node.memory_for(need.cores, need.memory_bytes), {}, {}};
  // Backwards: the lists are used from their ends, so that the oldest worker goes first.
  for (auto it = node.workers.rbegin(); it != node.workers.rend(); ++it) {
    Worker& worker = it->second;
    if (worker.state != Worker::State::ready || !offers(worker, need.transports)) continue;
    if (worker.info.function == need.function) candidate.loaded.push_back(&worker);
    if (worker.info.function == 0) candidate.generic.push_back(&worker);
  }
  return candidate;
}

Error shortage(const std::vector<Candidate>& candidates, const Need& need, std::size_t placed) {
  std::uint32_t cores_most = 0;
  std::uint64_t memory_most = 0;
  std::size_t ready = 0;
  for (const Candidate& candidate : candidates) {
    cores_most = std::max(cores_most, candidate.node->cores_free());
    memory_most = std::max(memory_most, candidate.node->memory_free());
    for (const auto& [id, worker] : candidate.node->workers) {
      if (worker.state != Worker::State::ready || !offers(worker, need.transports)) continue;
      if (worker.info.function == 0 || worker.info.function == need.function) ++ready;
    }
  }
  const auto number = [](auto value) { return std::to_string(value); };
  std::string text = "asked for " + number(need.workers) + " workers of " + number(need.cores) + " cores";
  if (need.memory_bytes > 0) text += " and " + number(need.memory_bytes >> 20) + " MiB";
  if (!need.transports.empty()) {
    text += " reached over";
    for (const std::string& name : need.transports) text += " " + name;
  }
  text += "; room for " + number(placed) + " now; " + number(candidates.size()) + " nodes up, " +
          number(ready) +
          " workers ready that fit the function, most free on one node: " + number(cores_most) + " cores, " +
          number(memory_most >> 20) + " MiB";
  return {Errc::no_capacity, text};
}

}  // namespace

Result<std::vector<Pick>> place(std::map<NodeId, Node>& nodes, const Need& need) {
  std::vector<Candidate> candidates;
  for (auto& [id, node] : nodes) {
    if (node.admits()) candidates.push_back(candidate_of(node, need));
  }
  std::priority_queue<Candidate*, std::vector<Candidate*>, Worse> best;
  for (Candidate& candidate : candidates) {
    if (candidate.fits(need)) best.push(&candidate);
  }
  std::vector<Pick> picks;
  while (picks.size() < need.workers) {
    if (best.empty()) return shortage(candidates, need, picks.size());
    Candidate* candidate = best.top();
    best.pop();
    std::vector<Worker*>& from = candidate->loaded.empty() ? candidate->generic : candidate->loaded;
    picks.push_back({candidate->node, from.back()});
    from.pop_back();
    candidate->cores -= need.cores;
    candidate->memory_bytes -= candidate->memory_each;
    if (candidate->fits(need)) best.push(candidate);
  }
  return picks;
}

}  // namespace sublet::lease
