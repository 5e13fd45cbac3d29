#include "runtime/lease/placement.hpp"

#include <algorithm>
#include <queue>

namespace sublet::lease {
namespace {

/// A node with what it can still give to this lease.
struct Option {
  const Node* node = nullptr;
  Resources free;
  Resources each;
  std::vector<WorkerId> loaded;  // Taken from their ends.
  std::vector<WorkerId> generic;

  [[nodiscard]] bool fits() const noexcept {
    return (!loaded.empty() || !generic.empty()) && free.covers(each);
  }
};

struct Worse {
  bool pack = false;

  bool operator()(const Option* a, const Option* b) const noexcept {
    if (a->loaded.empty() != b->loaded.empty()) return a->loaded.empty();
    if (a->free.cores != b->free.cores) return (a->free.cores < b->free.cores) != pack;
    return a->node->id > b->node->id;
  }
};

/// At most `count` ready workers of the node that have `function` and can be reached, the oldest last.
std::vector<WorkerId> usable(const Node& node, FunctionId function, const Ask& ask, std::size_t count) {
  std::vector<WorkerId> ids;
  const auto ready = node.ready.find(function);
  if (ready == node.ready.end()) return ids;
  for (auto it = ready->second.begin(); it != ready->second.end() && ids.size() < count; ++it) {
    if (offers(node.workers.at(*it).info, ask.request.transports)) ids.push_back(*it);
  }
  std::reverse(ids.begin(), ids.end());
  return ids;
}

/// The best nodes of one order. As many as there are workers to place are enough: a worse one is never
/// taken, since each worker that is placed changes one node only.
class Collector {
 public:
  Collector(const std::map<NodeId, Node>& nodes, const Ask& ask, std::uint32_t workers)
      : nodes_(nodes), ask_(ask), workers_(workers) {}

  void collect(const Candidates::Order& order, bool pack) {
    std::size_t found = 0;
    if (pack) {
      for (auto it = order.lower_bound({ask_.request.cores, 0}); it != order.end() && found < workers_;
           ++it) {
        found += add(it->second) ? 1 : 0;
      }
    } else {
      for (auto it = order.rbegin(); it != order.rend() && found < workers_; ++it) {
        if (it->first < ask_.request.cores) return;
        found += add(it->second) ? 1 : 0;
      }
    }
  }
  [[nodiscard]] std::map<NodeId, Option>& options() noexcept { return options_; }

 private:
  bool add(NodeId id) {
    if (options_.contains(id)) return true;
    const Node& node = nodes_.at(id);
    Option option{&node, node.free(), node.counted(ask_.request), {}, {}};
    if (!option.free.covers(option.each)) return false;
    option.loaded = usable(node, ask_.function, ask_, workers_);
    if (ask_.function != 0) option.generic = usable(node, 0, ask_, workers_);
    if (!option.fits()) return false;
    options_.emplace(id, std::move(option));
    return true;
  }

  const std::map<NodeId, Node>& nodes_;
  const Ask& ask_;
  std::uint32_t workers_;
  std::map<NodeId, Option> options_;
};

}  // namespace

bool offers(const api::WorkerInfo& worker, const std::vector<std::string>& transports) {
  return transports.empty() ||
         std::any_of(transports.begin(), transports.end(),
                     [&](const std::string& name) { return worker.endpoints.contains(name); });
}

void Candidates::update(const Node& node) {
  At now{node.free().cores, {}};
  if (node.admits()) {
    for (const auto& [function, workers] : node.ready) now.functions.push_back(function);
  }
  if (const auto was = at_.find(node.id); was != at_.end()) {
    if (was->second.cores == now.cores && was->second.functions == now.functions) return;
    remove(node.id);
  }
  if (now.functions.empty()) return;
  for (const FunctionId function : now.functions) orders_[function].emplace(now.cores, node.id);
  at_.emplace(node.id, std::move(now));
}

void Candidates::remove(NodeId node) {
  const auto was = at_.find(node);
  if (was == at_.end()) return;
  for (const FunctionId function : was->second.functions) {
    const auto order = orders_.find(function);
    order->second.erase({was->second.cores, node});
    if (order->second.empty()) orders_.erase(order);
  }
  at_.erase(was);
}

const Candidates::Order* Candidates::with(FunctionId function) const {
  const auto found = orders_.find(function);
  return found != orders_.end() ? &found->second : nullptr;
}

std::vector<Pick> place(const std::map<NodeId, Node>& nodes, const Candidates& candidates, const Ask& ask,
                        std::uint32_t workers) {
  const bool pack = ask.request.placement == placement_pack;
  Collector collector(nodes, ask, workers);
  if (const auto* loaded = candidates.with(ask.function)) collector.collect(*loaded, pack);
  if (const auto* generic = candidates.with(0)) collector.collect(*generic, pack);
  std::priority_queue<Option*, std::vector<Option*>, Worse> best(Worse{pack});
  for (auto& [id, option] : collector.options()) best.push(&option);
  std::vector<Pick> picks;
  while (picks.size() < workers && !best.empty()) {
    Option* option = best.top();
    best.pop();
    std::vector<WorkerId>& from = option->loaded.empty() ? option->generic : option->loaded;
    picks.push_back({option->node->id, from.back()});
    from.pop_back();
    option->free -= option->each;
    if (option->fits()) best.push(option);
  }
  return picks;
}

}  // namespace sublet::lease
