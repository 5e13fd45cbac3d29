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

std::chrono::nanoseconds from_to(Time from, Time to) {
  return to > from ? to - from : std::chrono::nanoseconds(0);
}

Lender lender(const Node& node) {
  return {node.about.name, node.about.machine};
}

/// Why the worker's client came by another transport than one that is preferred to it; empty when it did not.
std::string fallback(const std::vector<std::string>& preferred, const Worker& worker) {
  std::string text;
  if (worker.transport.empty()) return text;
  for (const std::string& name : preferred) {
    if (name == worker.transport) break;
    text += (text.empty() ? "" : "; ") + name + " is preferred, ";
    text += worker.info.endpoints.contains(name) ? "and offered, but the client could not use it"
                                                 : "but the worker does not offer it";
  }
  return text;
}

Error unknown_lease(LeaseId id) {
  return {Errc::not_found, "there is no lease " + std::to_string(id)};
}

}  // namespace

LeaseTable::LeaseTable(std::uint64_t first_id, Policy policy)
    : next_id_(first_id), policy_(std::move(policy)) {
  for (const auto& [name, bounds] : policy_.tenants) {
    tenants_[name] = Tenant{.policy = bounds, .number = next_tenant_++};
  }
}

Result<Tenant*> LeaseTable::tenant_named(const std::string& name) {
  if (const auto known = tenants_.find(name); known != tenants_.end()) return &known->second;
  if (tenants_.size() >= limits::tenants_max) {
    return Error(Errc::queue_full, "there are " + std::to_string(limits::tenants_max) + " tenants already");
  }
  return &(tenants_[name] = Tenant{.number = next_tenant_++});
}

void LeaseTable::leave_tenant(const Lease& lease) {
  const api::LeaseRequest& request = lease.ask.request;
  const auto found = tenants_.find(request.tenant);
  Tenant& tenant = found->second;
  --tenant.leases;
  tenant.held -= {request.workers * request.cores, request.workers * request.gpus,
                  request.workers * request.memory_bytes};
  if (tenant.leases == 0 && !policy_.tenants.contains(request.tenant)) tenants_.erase(found);
}

double LeaseTable::claim(const std::string& name) const {
  const auto tenant = tenants_.find(name);
  return tenant != tenants_.end() ? tenant->second.claim(total_) : 0;
}

Result<LeaseTable::Lease*> LeaseTable::find_active(LeaseId id, Time now) {
  const auto found = leases_.find(id);
  if (found != leases_.end() && found->second.expiry > now) return &found->second;
  if (found != leases_.end()) end_lease(id, "expired", now);
  if (const auto ended = ended_.find(id); ended != ended_.end()) {
    return ended_error(id, ended->second.reason);
  }
  return unknown_lease(id);
}

/// Takes the picked worker into the lease.
void LeaseTable::occupy(Lease& lease, const Pick& pick, Place& place, Time now) {
  Node& node = nodes_.at(pick.node);
  hold(node, node.workers.at(pick.worker), lease.id, node.counted(lease.ask.request), now);
  place.node = pick.node;
  place.worker = pick.worker;
  place.live = true;
  ++lease.workers_used;
}

/// The worker is out of the lease, and its time is counted.
void LeaseTable::vacate(Lease& lease, Place& place, Time now) {
  place.live = false;
  const Worker& worker = nodes_.at(place.node).workers.at(place.worker);
  lease.lease_time += from_to(worker.since, std::min(now, lease.expiry));
  dirty_leases_.insert(lease.id);
}

std::string LeaseTable::token_of(const Lease& lease, const Place& place) const {
  const std::uint64_t unit = std::uint64_t{1} << token_memory_shift;
  const std::uint64_t memory = (lease.ask.request.memory_bytes + unit - 1) >> token_memory_shift;
  wire::SignedToken token{{.lease = lease.id,
                           .expiry_ms = to_ms(std::min(lease.expiry, nodes_.at(place.node).end())),
                           .worker = place.worker,
                           .tenant = lease.tenant,
                           .function = lease.ask.function,
                           .cores = static_cast<std::uint16_t>(lease.ask.request.cores),
                           .memory_16mib = static_cast<std::uint16_t>(memory)},
                          {}};
  token.mac = wire::sign(token.token, nodes_.at(place.node).key);
  return wire::to_text(token);
}

api::GrantedWorker LeaseTable::shown(const Lease& lease, const Place& place) const {
  const Node& node = nodes_.at(place.node);
  const Worker& worker = node.workers.at(place.worker);
  return {place.node,
          node.about.name,
          node.about.machine,
          place.worker,
          worker.info.endpoints,
          "",
          worker.transport,
          fallback(lease.ask.request.transports.prefer, worker)};
}

/// The grant with tokens: of all live workers, or of one.
api::LeaseGrant LeaseTable::grant_of(const Lease& lease, const Place* only) const {
  api::LeaseGrant grant{
      lease.id, lease.ask.function, lease.ask.function_name, lease.ask.request.ttl_ms, to_ms(lease.expiry),
      {}};
  for (const Place& place : lease.places) {
    if (!place.live || (only != nullptr && only != &place)) continue;
    grant.workers.push_back(shown(lease, place));
    grant.workers.back().token = token_of(lease, place);
  }
  return grant;
}

Result<api::LeaseGrant> LeaseTable::grant(const Ask& ask, Time now) {
  if (Status good = check(ask.request); !good) return good.error();
  if (leases_.size() >= limits::leases_max) {
    return Error(Errc::no_capacity,
                 std::to_string(leases_.size()) + " leases are active: the most there may be");
  }
  const Result<Tenant*> found = tenant_named(ask.request.tenant);
  if (!found) return found.error();
  Tenant& tenant = **found;
  const api::LeaseRequest& request = ask.request;
  Lease lease{.ask = ask, .tenant = tenant.number, .granted = now};
  if (lease.ask.request.placement.empty()) lease.ask.request.placement = policy_.placement;
  std::vector<Pick> picks;
  if (tenant.may_have(std::uint64_t{request.workers} * request.cores)) {
    picks = place(nodes_, candidates_, lease.ask, request.workers);
  }
  if (picks.size() < request.workers) {
    if (tenant.leases == 0 && !policy_.tenants.contains(request.tenant)) tenants_.erase(request.tenant);
    return Error(Errc::no_capacity);
  }
  lease.id = next_id_++;
  lease.expiry = now + std::chrono::milliseconds(request.ttl_ms);
  lease.places.resize(picks.size());
  std::set<NodeId> lenders;
  for (std::size_t i = 0; i < picks.size(); ++i) {
    occupy(lease, picks[i], lease.places[i], now);
    if (lenders.insert(picks[i].node).second) lease.lent.push_back(lender(nodes_.at(picks[i].node)));
  }
  ++tenant.leases;
  tenant.held += {request.workers * request.cores, request.workers * request.gpus,
                  request.workers * request.memory_bytes};
  expiries_.emplace(lease.expiry, lease.id);
  ++users_[ask.function];
  ++counts_.granted;
  dirty_leases_.insert(lease.id);
  return grant_of(leases_.emplace(lease.id, std::move(lease)).first->second, nullptr);
}

Result<api::LeaseGrant> LeaseTable::renew(LeaseId id, std::uint64_t ttl_ms, Time now) {
  if (Status good = check_ttl(ttl_ms); !good) return good.error();
  const Result<Lease*> found = find_active(id, now);
  if (!found) return found.error();
  Lease& lease = **found;
  lease.ask.request.ttl_ms = ttl_ms;
  expiries_.erase({lease.expiry, id});
  // Never earlier: tokens already given out say how long workers serve.
  lease.expiry = std::max(lease.expiry, now + std::chrono::milliseconds(ttl_ms));
  expiries_.emplace(lease.expiry, id);
  ++counts_.renewed;
  dirty_leases_.insert(id);
  return grant_of(lease, nullptr);
}

Result<api::LeaseGrant> LeaseTable::replace(LeaseId id, NodeId node_id, WorkerId worker_id, Time now) {
  const Result<Lease*> found = find_active(id, now);
  if (!found) return found.error();
  Lease& lease = **found;
  const HeldKey asked{node_id, worker_id};
  const auto with = [&](auto&& fits) { return std::find_if(lease.places.begin(), lease.places.end(), fits); };
  const auto done = with([&](const Place& place) { return place.live && place.before == asked; });
  if (done != lease.places.end()) return grant_of(lease, &*done);
  const auto at = with([&](const Place& place) { return HeldKey{place.node, place.worker} == asked; });
  if (at == lease.places.end()) {
    return Error(Errc::not_found, "lease " + std::to_string(id) + " has no worker " +
                                      std::to_string(worker_id) + " on node " + std::to_string(node_id));
  }
  if (at->live) {
    vacate(lease, *at, now);
    Node& node = nodes_.at(node_id);
    Worker& worker = node.workers.at(worker_id);
    worker.end_sequence =
        command(node, {.kind = "end_worker", .lease = id, .reason = "replaced", .worker = worker_id});
    set_state(node, worker, Worker::State::ending);
  }
  // A worker that the lease has lost may be heard of as ready again, when a list came late. It is not taken:
  // two places of one worker could not be told apart.
  const auto had = [&](const Pick& pick) {
    const HeldKey picked{pick.node, pick.worker};
    return with([&](const Place& place) {
             return HeldKey{place.node, place.worker} == picked || place.before == picked;
           }) != lease.places.end();
  };
  std::vector<Pick> picks = place(nodes_, candidates_, lease.ask, 1);
  if (!picks.empty() && had(picks.front())) {
    picks = place(nodes_, candidates_, lease.ask, static_cast<std::uint32_t>(lease.places.size()) + 1);
    std::erase_if(picks, had);
  }
  if (picks.empty()) return Error(Errc::no_capacity);
  const NodeId from = picks.front().node;
  if (with([&](const Place& place) { return place.node == from || place.before.first == from; }) ==
      lease.places.end()) {
    lease.lent.push_back(lender(nodes_.at(from)));
  }
  at->before = asked;
  occupy(lease, picks.front(), *at, now);
  dirty_leases_.insert(id);
  ++counts_.replaced;
  return grant_of(lease, &*at);
}

Result<api::LeaseInfo> LeaseTable::end(LeaseId id, const std::string& reason, Time now) {
  end_lease(id, reason, now);
  return lease(id);
}

void LeaseTable::end_lease(LeaseId id, const std::string& reason, Time now) {
  const auto found = leases_.find(id);
  if (found == leases_.end()) return;
  Lease& lease = found->second;
  const Time ended = std::min(now, lease.expiry);
  api::LeaseInfo last = info_of(lease);
  last.state = "ended";
  last.reason = reason;
  last.ended_ms = to_ms(ended);
  last.workers.resize(std::min(last.workers.size(), limits::lease_ended_workers_max));
  std::set<NodeId> told;
  for (Place& place : lease.places) {
    if (!place.live) continue;
    vacate(lease, place, now);
    if (told.insert(place.node).second) tell_end(nodes_.at(place.node), id, reason);
  }
  if (const auto users = users_.find(lease.ask.function); --users->second == 0) users_.erase(users);
  expiries_.erase({lease.expiry, id});
  leave_tenant(lease);
  changes_.capacity = true;  // Of its tenant's quota.
  LeaseRow row = row_of(lease);
  row.reason = reason;
  row.ended = ended;
  ended_rows_.push_back(std::move(row));
  dirty_leases_.erase(id);
  leases_.erase(found);
  ++counts_.ended[reason];
  remember_ended(std::move(last));
}

void LeaseTable::remember_ended(api::LeaseInfo last) {
  const LeaseId id = last.lease;
  ended_.emplace(id, std::move(last));
  ended_order_.push_back(id);
  if (ended_order_.size() <= limits::leases_ended_max) return;
  ended_.erase(ended_order_.front());
  ended_order_.pop_front();
}

void LeaseTable::tick(Time now) {
  while (!expiries_.empty() && expiries_.begin()->first <= now) {
    const LeaseId id = expiries_.begin()->second;
    const Lease& lease = leases_.at(id);
    const bool all_lost =
        std::none_of(lease.places.begin(), lease.places.end(), [](const Place& place) { return place.live; });
    end_lease(id, all_lost && lease.node_lost ? "node_lost" : "expired", now);
  }
  pass_ends(now);
  while (!heard_.empty() && heard_.begin()->first + limits::node_silent_max < now) {
    Node& node = nodes_.at(heard_.begin()->second);
    lose_node(node, "silent for more than " + std::to_string(limits::node_silent_max.count()) + " ms", now);
  }
  while (!probations_.empty() && probations_.begin()->first <= now) {
    Node& node = nodes_.at(probations_.begin()->second);
    probations_.erase(probations_.begin());
    node.probation_end = {};
    candidates_.update(node);
    changes_.capacity = true;
  }
  if (flaps_.size() > limits::nodes_max) {
    std::erase_if(flaps_, [&](const auto& entry) { return entry.second.last + limits::flap_memory <= now; });
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
                      .granted_ms = to_ms(lease.granted),
                      .expiry_ms = to_ms(lease.expiry),
                      .transports = request.transports};
  for (const Place& place : lease.places) {
    if (place.live) info.workers.push_back(shown(lease, place));
  }
  return info;
}

api::Leases LeaseTable::leases(const LeaseFilter& filter) const {
  api::Leases all;
  const auto wanted = [&](const std::string& tenant) {
    return filter.tenant.empty() || filter.tenant == tenant;
  };
  auto active =
      filter.before == 0 ? leases_.rbegin() : std::make_reverse_iterator(leases_.lower_bound(filter.before));
  auto ended =
      filter.before == 0 ? ended_.rbegin() : std::make_reverse_iterator(ended_.lower_bound(filter.before));
  const auto skip = [&] {
    while (active != leases_.rend() &&
           (filter.state == "ended" || !wanted(active->second.ask.request.tenant))) {
      ++active;
    }
    while (ended != ended_.rend() && (filter.state == "active" || !wanted(ended->second.tenant))) ++ended;
  };
  for (skip(); all.leases.size() < filter.limit; skip()) {
    const bool any_active = active != leases_.rend();
    if (!any_active && ended == ended_.rend()) break;
    if (any_active && (ended == ended_.rend() || active->first > ended->first)) {
      all.leases.push_back(info_of((active++)->second));
    } else {
      all.leases.push_back((ended++)->second);
    }
  }
  return all;
}

Result<api::LeaseInfo> LeaseTable::lease(LeaseId id) const {
  if (const auto active = leases_.find(id); active != leases_.end()) return info_of(active->second);
  if (const auto ended = ended_.find(id); ended != ended_.end()) return ended->second;
  return unknown_lease(id);
}

}  // namespace sublet::lease
