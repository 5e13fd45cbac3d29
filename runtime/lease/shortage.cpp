// Why a request found no room, and when there may be some. Off the path of grants: looks at every node.

#include <algorithm>

#include "runtime/control/transports.hpp"
#include "runtime/lease/lease_table.hpp"

namespace sublet::lease {
namespace {

constexpr std::size_t expiries_looked_at_max = 20'000;

std::string number(std::uint64_t value) {
  return std::to_string(value);
}

std::string asked(const Ask& ask, std::uint32_t workers) {
  const api::LeaseRequest& request = ask.request;
  std::string text = "asked for " + number(workers) + " workers of " + number(request.cores) + " cores";
  if (request.gpus > 0) text += ", " + number(request.gpus) + " GPUs";
  if (request.memory_bytes > 0) text += " and " + number(request.memory_bytes >> 20) + " MiB";
  if (const std::string over = api::in_words(request.transports); !over.empty())
    text += " reached over " + over;
  return text;
}

std::uint64_t times(const Resources& have, const Resources& each) {
  std::uint64_t fit = have.cores / each.cores;
  if (each.gpus > 0) fit = std::min<std::uint64_t>(fit, have.gpus / each.gpus);
  if (each.memory_bytes > 0) fit = std::min(fit, have.memory_bytes / each.memory_bytes);
  return fit;
}

/// What one node could give to the ask.
struct Room {
  Resources free;
  Resources each;
  std::uint64_t ready = 0;  ///< Workers.

  [[nodiscard]] std::uint64_t workers() const { return std::min(ready, times(free, each)); }
};

std::uint64_t usable(const Node& node, const Ask& ask) {
  std::uint64_t count = 0;
  for (const FunctionId function : {ask.function, FunctionId{0}}) {
    const auto ready = node.ready.find(function);
    if (ready == node.ready.end()) continue;
    count += static_cast<std::uint64_t>(
        std::count_if(ready->second.begin(), ready->second.end(),
                      [&](WorkerId id) { return offers(node.workers.at(id).info, ask.request.transports); }));
  }
  return count;
}

/// Counts what the node's workers offer, and returns how many of them the ask may reach.
std::uint64_t count_offers(const Node& node, const Ask& ask, std::map<std::string, std::uint64_t>& offered) {
  std::uint64_t reachable = 0;
  for (const auto& [id, worker] : node.workers) {
    for (const auto& [transport, address] : worker.info.endpoints) ++offered[transport];
    reachable += offers(worker.info, ask.request.transports) ? 1 : 0;
  }
  return reachable;
}

/// "no worker offers verbs; 3 offer tcp"; empty when every transport is allowed.
std::string offers_in_words(const Ask& ask, std::uint64_t reachable,
                            const std::map<std::string, std::uint64_t>& offered) {
  const std::string wanted = api::in_words(ask.request.transports);
  if (wanted.empty()) return "";
  std::string text =
      "; " + (reachable == 0 ? "no worker offers " : number(reachable) + " workers offer ") + wanted + ";";
  for (const auto& [transport, workers] : offered) {
    text += (text.back() == ';' ? " " : ", ") + number(workers) + " offer " + transport;
  }
  if (offered.empty()) text += " there are no workers";
  return text;
}

std::string in_words(std::chrono::milliseconds time) {
  return number(static_cast<std::uint64_t>(std::chrono::ceil<std::chrono::seconds>(time).count())) + " s";
}

/// The pool as one ask sees it.
struct View {
  std::map<NodeId, Room> rooms;
  std::uint64_t workers = 0;  ///< For which there is room now.
  std::uint64_t at_best = 0;  ///< If nobody held anything.
  std::uint64_t ready = 0;
  std::uint64_t not_admitting = 0;
  std::uint64_t reachable = 0;                   ///< Workers, busy ones too, by what the ask allows.
  std::map<std::string, std::uint64_t> offered;  ///< Workers that offer a transport, busy ones too.
  Resources free_most;
  Resources node_most;
};

View look(const std::map<NodeId, Node>& nodes, const Ask& ask) {
  View view;
  const auto most = [](Resources& best, const Resources& has) {
    best = {std::max(best.cores, has.cores), std::max(best.gpus, has.gpus),
            std::max(best.memory_bytes, has.memory_bytes)};
  };
  for (const auto& [id, node] : nodes) {
    if (node.lost) continue;
    if (!node.admits()) {
      ++view.not_admitting;
      continue;
    }
    const Room room{node.free(), node.counted(ask.request), usable(node, ask)};
    view.workers += room.workers();
    const std::uint64_t reachable = count_offers(node, ask, view.offered);
    view.reachable += reachable;
    // What a node without workers will offer is not known.
    if (reachable > 0 || node.workers.empty()) view.at_best += times(node.total(), room.each);
    view.ready += room.ready;
    most(view.free_most, room.free);
    most(view.node_most, node.total());
    view.rooms.emplace(id, room);
  }
  return view;
}

}  // namespace

Shortage LeaseTable::shortage(const Ask& ask, Time now) const {
  const api::LeaseRequest& request = ask.request;
  if (const auto found = tenants_.find(request.tenant); found != tenants_.end()) {
    const Tenant& tenant = found->second;
    const std::uint64_t cores = std::uint64_t{request.workers} * request.cores;
    if (!tenant.may_have(cores)) {
      std::string text = "tenant " + request.tenant + " has " + number(tenant.leases) + " leases with " +
                         number(tenant.held.cores) + " cores and asked for " + number(cores) +
                         " more; its quota is ";
      if (tenant.policy.leases_max > 0) text += number(tenant.policy.leases_max) + " leases ";
      if (tenant.policy.cores_max > 0) text += number(tenant.policy.cores_max) + " cores";
      return {text + ": release some or ask the site for more", std::nullopt};
    }
  }
  View view = look(nodes_, ask);
  Shortage shortage{
      asked(ask, request.workers) + "; room for " +
          number(std::min<std::uint64_t>(view.workers, request.workers)) + " now; " +
          number(view.rooms.size()) + " nodes up, " + number(view.not_admitting) + " not admitting, " +
          number(view.ready) + " workers ready that fit the function, most free on one node: " +
          number(view.free_most.cores) + " cores, " + number(view.free_most.memory_bytes >> 20) + " MiB, " +
          number(view.free_most.gpus) + " GPUs" + offers_in_words(ask, view.reachable, view.offered),
      std::nullopt};
  if (view.reachable == 0 && !view.offered.empty() && !api::in_words(request.transports).empty()) {
    shortage.text += ": allow another transport, or wait for other nodes";
    return shortage;
  }
  if (view.at_best < request.workers) {
    shortage.text += "; the nodes that are up could not give it even when empty (the largest has " +
                     number(view.node_most.cores) + " cores, " + number(view.node_most.memory_bytes >> 20) +
                     " MiB, " + number(view.node_most.gpus) + " GPUs): ask for less";
    return shortage;
  }
  std::size_t looked_at = 0;
  for (const auto& [expiry, id] : expiries_) {
    if (view.workers >= request.workers || ++looked_at > expiries_looked_at_max) break;
    const Lease& lease = leases_.at(id);
    for (const Place& place : lease.places) {
      const auto room = view.rooms.find(place.node);
      if (!place.live || room == view.rooms.end()) continue;
      const Worker& worker = nodes_.at(place.node).workers.at(place.worker);
      view.workers -= room->second.workers();
      room->second.free += {worker.cores, worker.gpus, worker.memory_bytes};
      ++room->second.ready;
      view.workers += room->second.workers();
    }
    if (view.workers < request.workers) continue;
    shortage.retry_after =
        std::max(std::chrono::ceil<std::chrono::milliseconds>(expiry - now), std::chrono::milliseconds(1));
    shortage.text += "; unless leases are renewed there is room in " + in_words(*shortage.retry_after);
  }
  return shortage;
}

Shortage LeaseTable::shortage(LeaseId id, Time now) const {
  const auto found = leases_.find(id);
  if (found == leases_.end()) return {"the lease has ended", std::nullopt};
  Ask ask = found->second.ask;
  ask.request.workers = 1;
  ask.request.tenant.clear();  // It has its quota already.
  return shortage(ask, now);
}

}  // namespace sublet::lease
