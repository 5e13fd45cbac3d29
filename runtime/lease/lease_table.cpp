#include "runtime/lease/lease_table.hpp"

#include <algorithm>

#include "runtime/base/assert.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/lease/checks.hpp"
#include "runtime/wire/handshake.hpp"

namespace sublet::lease {
namespace {

constexpr unsigned token_memory_shift = 24;  // A token counts memory in 16 MiB.

Error ended_error(LeaseId id, const std::string& reason) {
  const std::string text = "lease " + std::to_string(id) + " has ended: " + reason;
  if (reason == "revoked") return {Errc::lease_revoked, text};
  if (reason == "released") return {Errc::closed, text};
  return {Errc::lease_expired, text};
}

Error unknown_lease(LeaseId id) {
  return {Errc::not_found, "there is no lease " + std::to_string(id)};
}

}  // namespace

Result<std::uint32_t> LeaseTable::tenant_number(const std::string& name) {
  if (const auto known = tenants_.find(name); known != tenants_.end()) return known->second;
  if (tenants_.size() >= limits::tenants_max) {
    return Error(Errc::queue_full, "there are " + std::to_string(limits::tenants_max) + " tenants already");
  }
  return tenants_[name] = static_cast<std::uint32_t>(tenants_.size() + 1);
}

Result<LeaseTable::Lease*> LeaseTable::find_active(LeaseId id, Now now) {
  const auto found = leases_.find(id);
  if (found != leases_.end() && found->second.expiry > now.steady) return &found->second;
  if (found != leases_.end()) end_lease(id, "expired");
  if (const auto ended = ended_.find(id); ended != ended_.end()) {
    return ended_error(id, ended->second.reason);
  }
  return unknown_lease(id);
}

Need LeaseTable::need_of(const Lease& lease, std::uint32_t workers) const {
  const api::LeaseRequest& request = lease.ask.request;
  return {workers, request.cores, request.memory_bytes, lease.ask.function, request.transports};
}

/// Takes the picked worker into the lease.
void LeaseTable::occupy(Lease& lease, const Pick& pick, Place& place) {
  SUBLET_ASSERT(pick.worker->state == Worker::State::ready);
  Node& node = *pick.node;
  const api::LeaseRequest& request = lease.ask.request;
  node.hold(*pick.worker, lease.id, request.cores, node.memory_for(request.cores, request.memory_bytes));
  SUBLET_ASSERT(node.cores_held <= node.about.cores);
  place = {
      node.id,
      pick.worker->info.id,
      true,
      {node.id, node.about.name, node.about.machine, pick.worker->info.id, pick.worker->info.endpoints, ""}};
}

std::string LeaseTable::token_of(const Lease& lease, const Place& place) const {
  const std::uint64_t unit = std::uint64_t{1} << token_memory_shift;
  const std::uint64_t memory = (lease.ask.request.memory_bytes + unit - 1) >> token_memory_shift;
  wire::SignedToken token{{.lease = lease.id,
                           .expiry_ms = lease.expiry_ms,
                           .worker = place.worker,
                           .tenant = lease.tenant,
                           .function = lease.ask.function,
                           .cores = static_cast<std::uint16_t>(lease.ask.request.cores),
                           .memory_16mib = static_cast<std::uint16_t>(memory)},
                          {}};
  token.mac = wire::sign(token.token, nodes_.at(place.node).key);
  return wire::to_text(token);
}

/// The grant with tokens: of all live workers, or of one.
api::LeaseGrant LeaseTable::grant_of(const Lease& lease, const Place* only) const {
  api::LeaseGrant grant{
      lease.id, lease.ask.function, lease.ask.function_name, lease.ask.request.ttl_ms, lease.expiry_ms, {}};
  for (const Place& place : lease.places) {
    if (!place.live || (only != nullptr && only != &place)) continue;
    grant.workers.push_back(place.shown);
    grant.workers.back().token = token_of(lease, place);
  }
  return grant;
}

Result<api::LeaseGrant> LeaseTable::grant(const Ask& ask, Now now) {
  if (Status good = check(ask.request); !good) return good.error();
  if (leases_.size() >= limits::leases_max) {
    return Error(Errc::no_capacity,
                 std::to_string(leases_.size()) + " leases are active: the most there may be");
  }
  const Result<std::uint32_t> tenant = tenant_number(ask.request.tenant);
  if (!tenant) return tenant.error();
  Lease lease{.ask = ask, .tenant = *tenant};
  Result<std::vector<Pick>> picks = place(nodes_, need_of(lease, ask.request.workers));
  if (!picks) return picks.error();
  lease.id = next_id_++;
  lease.expiry = now.steady + std::chrono::milliseconds(ask.request.ttl_ms);
  lease.expiry_ms = now.unix_ms + ask.request.ttl_ms;
  lease.places.resize(picks->size());
  for (std::size_t i = 0; i < picks->size(); ++i) occupy(lease, (*picks)[i], lease.places[i]);
  expiries_.emplace(lease.expiry, lease.id);
  ++users_[ask.function];
  ++counts_.granted;
  return grant_of(leases_.emplace(lease.id, std::move(lease)).first->second, nullptr);
}

Result<api::LeaseGrant> LeaseTable::renew(LeaseId id, std::uint64_t ttl_ms, Now now) {
  if (Status good = check_ttl(ttl_ms); !good) return good.error();
  const Result<Lease*> found = find_active(id, now);
  if (!found) return found.error();
  Lease& lease = **found;
  lease.ask.request.ttl_ms = ttl_ms;
  expiries_.erase({lease.expiry, id});
  // Never earlier: tokens already given out say how long workers serve.
  lease.expiry = std::max(lease.expiry, now.steady + std::chrono::milliseconds(ttl_ms));
  lease.expiry_ms = std::max(lease.expiry_ms, now.unix_ms + ttl_ms);
  expiries_.emplace(lease.expiry, id);
  ++counts_.renewed;
  return grant_of(lease, nullptr);
}

Result<api::LeaseGrant> LeaseTable::replace(LeaseId id, NodeId node_id, WorkerId worker_id, Now now) {
  const Result<Lease*> found = find_active(id, now);
  if (!found) return found.error();
  Lease& lease = **found;
  const auto at = std::find_if(lease.places.begin(), lease.places.end(), [&](const Place& place) {
    return place.node == node_id && place.worker == worker_id;
  });
  if (at == lease.places.end()) {
    return Error(Errc::not_found, "worker " + std::to_string(worker_id) + " of node " +
                                      std::to_string(node_id) + " is not in lease " + std::to_string(id));
  }
  if (at->live) {
    at->live = false;
    ++counts_.workers_lost;
    Node& node = nodes_.at(node_id);
    Worker& worker = node.workers.at(worker_id);
    worker.state = Worker::State::ending;
    worker.end_sequence =
        command(node, {.kind = "end_worker", .lease = id, .reason = "replaced", .worker = worker_id});
  }
  Result<std::vector<Pick>> picks = place(nodes_, need_of(lease, 1));
  if (!picks) return picks.error();
  occupy(lease, picks->front(), *at);
  ++counts_.replaced;
  return grant_of(lease, &*at);
}

Result<api::LeaseInfo> LeaseTable::end(LeaseId id, const std::string& reason) {
  end_lease(id, reason);
  return lease(id);
}

void LeaseTable::end_lease(LeaseId id, const std::string& reason) {
  const auto found = leases_.find(id);
  if (found == leases_.end()) return;
  const Lease& lease = found->second;
  api::LeaseInfo last = info_of(lease);
  last.state = "ended";
  last.reason = reason;
  std::set<NodeId> told;
  for (const Place& place : lease.places) {
    if (place.live && told.insert(place.node).second) tell_end(nodes_.at(place.node), id, reason);
  }
  if (const auto users = users_.find(lease.ask.function); --users->second == 0) users_.erase(users);
  expiries_.erase({lease.expiry, id});
  leases_.erase(found);
  ++counts_.ended[reason];
  ended_.emplace(id, std::move(last));
  ended_order_.push_back(id);
  if (ended_order_.size() > limits::leases_ended_max) {
    ended_.erase(ended_order_.front());
    ended_order_.pop_front();
  }
}

void LeaseTable::tick(Now now) {
  while (!expiries_.empty() && expiries_.begin()->first <= now.steady) {
    const LeaseId id = expiries_.begin()->second;
    const Lease& lease = leases_.at(id);
    const bool all_lost =
        std::none_of(lease.places.begin(), lease.places.end(), [](const Place& place) { return place.live; });
    end_lease(id, all_lost && lease.node_lost ? "node_lost" : "expired");
  }
  while (!heard_.empty() && heard_.begin()->first + limits::node_silent_max < now.steady) {
    Node& node = nodes_.at(heard_.begin()->second);
    lose_node(node, "silent for more than " + std::to_string(limits::node_silent_max.count()) + " ms");
  }
}

api::LeaseInfo LeaseTable::info_of(const Lease& lease) const {
  const api::LeaseRequest& request = lease.ask.request;
  api::LeaseInfo info{.lease = lease.id,
                      .tenant = request.tenant,
                      .function_name = lease.ask.function_name,
                      .state = "active",
                      .cores = request.cores,
                      .memory_bytes = request.memory_bytes,
                      .expiry_ms = lease.expiry_ms};
  for (const Place& place : lease.places) {
    if (place.live) info.workers.push_back(place.shown);
  }
  return info;
}

api::Leases LeaseTable::leases() const {
  api::Leases all;
  for (const LeaseId id : ended_order_) all.leases.push_back(ended_.at(id));
  for (const auto& [id, lease] : leases_) all.leases.push_back(info_of(lease));
  return all;
}

Result<api::LeaseInfo> LeaseTable::lease(LeaseId id) const {
  if (const auto active = leases_.find(id); active != leases_.end()) return info_of(active->second);
  if (const auto ended = ended_.find(id); ended != ended_.end()) return ended->second;
  return unknown_lease(id);
}

}  // namespace sublet::lease
