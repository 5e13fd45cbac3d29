#include "runtime/lease/placement.hpp"

#include <algorithm>
#include <functional>
#include <queue>
#include <tuple>

#include "runtime/control/transports.hpp"

namespace sublet::lease {
namespace {

/// A worker that may be taken, the less the better.
struct Choice {
  std::size_t rank = 0;  ///< Of its best transport among the preferred ones.
  bool cold = false;     ///< It must load the function first.
  WorkerId id = 0;

  [[nodiscard]] bool operator>(const Choice& other) const noexcept {
    return std::tie(rank, cold, id) > std::tie(other.rank, other.cold, other.id);
  }
};

/// A node with what it can still give to this lease.
struct Option {
  const Node* node = nullptr;
  Resources free;
  Resources each;
  std::vector<Choice> workers;  // Taken from its end.

  [[nodiscard]] bool fits() const noexcept { return !workers.empty() && free.covers(each); }
};

struct Worse {
  bool pack = false;

  bool operator()(const Option* a, const Option* b) const noexcept {
    const Choice& of_a = a->workers.back();
    const Choice& of_b = b->workers.back();
    if (of_a.rank != of_b.rank) return of_a.rank > of_b.rank;
    if (of_a.cold != of_b.cold) return of_a.cold;
    if (a->free.cores != b->free.cores) return (a->free.cores < b->free.cores) != pack;
    return a->node->id > b->node->id;
  }
};

/// Behind the last one: offers none of the preferred transports.
std::size_t rank_of(const api::WorkerInfo& worker, const std::vector<std::string>& preferred) {
  const auto best = std::find_if(preferred.begin(), preferred.end(),
                                 [&](const std::string& name) { return worker.endpoints.contains(name); });
  return static_cast<std::size_t>(best - preferred.begin());
}

/// Adds ready workers of the node that have `function` and can be reached: of those that are equally good at
/// most `count`, the oldest.
void add_usable(const Node& node, FunctionId function, const Ask& ask, std::size_t count,
                std::vector<Choice>& to) {
  const auto ready = node.ready.find(function);
  if (ready == node.ready.end()) return;
  const api::Transports& wishes = ask.request.transports;
  std::size_t found = 0;
  for (const WorkerId id : ready->second) {
    if (found == count && wishes.prefer.empty()) return;
    const api::WorkerInfo& worker = node.workers.at(id).info;
    if (!offers(worker, wishes)) continue;
    to.push_back({rank_of(worker, wishes.prefer), function != ask.function, id});
    ++found;
  }
}

/// The best nodes of each order. As many as there are workers to place are enough: a worse one is never
/// taken, since each worker that is placed changes one node only.
class Collector {
 public:
  Collector(const std::map<NodeId, Node>& nodes, const Candidates& candidates, const Ask& ask,
            std::uint32_t workers)
      : nodes_(nodes), candidates_(candidates), ask_(ask), workers_(workers) {}

  /// Nodes with a worker of one rank after the other, until there are enough.
  [[nodiscard]] std::map<NodeId, Option>& collect() {
    for (std::size_t rank = 0; rank <= ask_.request.transports.prefer.size() && options_.size() < workers_;
         ++rank) {
      for (const FunctionId function : {ask_.function, FunctionId{0}}) {
        if (const auto* order = candidates_.with(function)) collect(*order, rank);
      }
    }
    return options_;
  }

 private:
  void collect(const Candidates::Order& order, std::size_t rank) {
    std::size_t found = 0;
    if (ask_.request.placement == placement_pack) {
      for (auto it = order.lower_bound({ask_.request.cores, 0}); it != order.end() && found < workers_;
           ++it) {
        found += add(it->second, rank) ? 1 : 0;
      }
    } else {
      for (auto it = order.rbegin(); it != order.rend() && found < workers_; ++it) {
        if (it->first < ask_.request.cores) return;
        found += add(it->second, rank) ? 1 : 0;
      }
    }
  }

  /// True when the node is among the options and has a worker of the rank or a better one.
  bool add(NodeId id, std::size_t rank) {
    if (options_.contains(id)) return true;
    const Node& node = nodes_.at(id);
    Option option{&node, node.free(), node.counted(ask_.request), {}};
    if (!option.free.covers(option.each)) return false;
    add_usable(node, ask_.function, ask_, workers_, option.workers);
    if (ask_.function != 0) add_usable(node, 0, ask_, workers_, option.workers);
    std::sort(option.workers.begin(), option.workers.end(), std::greater<>());
    if (!option.fits() || option.workers.back().rank > rank) return false;
    options_.emplace(id, std::move(option));
    return true;
  }

  const std::map<NodeId, Node>& nodes_;
  const Candidates& candidates_;
  const Ask& ask_;
  std::uint32_t workers_;
  std::map<NodeId, Option> options_;
};

}  // namespace

bool offers(const api::WorkerInfo& worker, const api::Transports& wishes) {
  return std::any_of(worker.endpoints.begin(), worker.endpoints.end(),
                     [&](const auto& endpoint) { return api::allows(wishes, endpoint.first); });
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
  Collector collector(nodes, candidates, ask, workers);
  std::priority_queue<Option*, std::vector<Option*>, Worse> best(Worse{pack});
  for (auto& [id, option] : collector.collect()) best.push(&option);
  std::vector<Pick> picks;
  while (picks.size() < workers && !best.empty()) {
    Option* option = best.top();
    best.pop();
    picks.push_back({option->node->id, option->workers.back().id});
    option->workers.pop_back();
    option->free -= option->each;
    if (option->fits()) best.push(option);
  }
  return picks;
}

}  // namespace sublet::lease
