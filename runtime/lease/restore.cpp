// The part of LeaseTable that hands out what must outlive the manager, and takes it up again.

#include <algorithm>

#include "runtime/base/assert.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/lease/lease_table.hpp"

namespace sublet::lease {
namespace {

// Commands are numbered from the time of the restart on: above all numbers that the nodes have seen, since
// no manager gives a node more than this many commands a millisecond.
constexpr std::uint64_t sequences_per_ms = 64;

}  // namespace

LeaseRow LeaseTable::row_of(Lease& lease) {
  LeaseRow row{.id = lease.id,
               .function = lease.ask.function,
               .function_name = lease.ask.function_name,
               .request = lease.ask.request,
               .granted = lease.granted,
               .expiry = lease.expiry,
               .node_lost = lease.node_lost,
               .workers_used = lease.workers_used,
               .lease_time = lease.lease_time,
               .lent = std::exchange(lease.lent, {})};
  for (const Place& place : lease.places) row.places.push_back({{place.node, place.worker}, place.before});
  return row;
}

bool LeaseTable::dirty() const noexcept {
  return !(dirty_nodes_.empty() && dirty_orders_.empty() && dirty_leases_.empty() && dirty_held_.empty() &&
           ended_rows_.empty());
}

Rows LeaseTable::take_rows() {
  Rows rows;
  for (const NodeId id : std::exchange(dirty_nodes_, {})) {
    const auto node = nodes_.find(id);
    if (node == nodes_.end() || node->second.lost) {
      rows.nodes_gone.push_back(id);
    } else {
      rows.nodes.push_back({id, node->second.about, node->second.key});
    }
  }
  for (const std::string& name : std::exchange(dirty_orders_, {})) {
    const Orders orders = orders_[name];
    rows.orders.push_back({name, orders.cordoned, orders.drained});
    if (!orders.cordoned && !orders.drained) orders_.erase(name);
  }
  for (const LeaseId id : std::exchange(dirty_leases_, {})) {
    if (const auto lease = leases_.find(id); lease != leases_.end())
      rows.leases.push_back(row_of(lease->second));
  }
  std::move(ended_rows_.begin(), ended_rows_.end(), std::back_inserter(rows.leases));
  ended_rows_.clear();
  for (const HeldKey& key : std::exchange(dirty_held_, {})) {
    const auto node = nodes_.find(key.first);
    const Worker* worker = nullptr;
    if (node != nodes_.end()) {
      const auto found = node->second.workers.find(key.second);
      if (found != node->second.workers.end()) worker = &found->second;
    }
    if (worker == nullptr || worker->lease == 0 || worker->foreign) {
      rows.held_gone.push_back(key);
      continue;
    }
    rows.held.push_back({key, worker->lease, worker->cores, worker->memory_bytes, worker->gpus,
                         worker->state == Worker::State::ending, worker->info.function, worker->since,
                         worker->info.endpoints});
  }
  return rows;
}

void LeaseTable::restore(Saved saved, Time now, std::chrono::milliseconds grace) {
  SUBLET_ASSERT(nodes_.empty() && leases_.empty());
  for (const OrderRow& row : saved.orders) orders_[row.name] = {row.cordoned, row.drained};
  for (const NodeRow& row : saved.nodes) restore_node(row, now + grace, to_ms(now) * sequences_per_ms);
  for (LeaseRow& row : saved.leases) restore_lease(row);
  for (const HeldRow& row : saved.held) restore_held(row);
  tell_ending();
}

void LeaseTable::restore_node(const NodeRow& row, Time heard, std::uint64_t sequence) {
  Node& node = nodes_[row.id];
  node.id = row.id;
  node.about = row.about;
  node.key = row.key;
  node.heard = heard;
  node.sequence = sequence;
  names_[row.about.name] = row.id;
  heard_.emplace(heard, row.id);
  total_ += node.total();
  next_id_ = std::max(next_id_, row.id + 1);
  obey_orders(node);
}

void LeaseTable::restore_lease(LeaseRow& row) {
  next_id_ = std::max(next_id_, row.id + 1);
  if (!row.reason.empty()) {
    remember_ended({.lease = row.id,
                    .tenant = row.request.tenant,
                    .function_name = row.function_name,
                    .state = "ended",
                    .reason = row.reason,
                    .cores = row.request.cores,
                    .memory_bytes = row.request.memory_bytes,
                    .granted_ms = to_ms(row.granted),
                    .expiry_ms = to_ms(row.expiry),
                    .ended_ms = to_ms(row.ended),
                    .transports = row.request.transports});
    return;
  }
  const api::LeaseRequest& request = row.request;
  Tenant& tenant = tenants_[request.tenant];
  if (tenant.number == 0) tenant.number = next_tenant_++;
  ++tenant.leases;
  tenant.held += {request.workers * request.cores, request.workers * request.gpus,
                  request.workers * request.memory_bytes};
  Lease lease{.id = row.id,
              .ask = {row.function, std::move(row.function_name), std::move(row.request)},
              .tenant = tenant.number,
              .granted = row.granted,
              .expiry = row.expiry,
              .node_lost = row.node_lost,
              .workers_used = row.workers_used,
              .lease_time = row.lease_time};
  for (const PlaceRow& place : row.places) {
    lease.places.push_back({place.worker.first, place.worker.second, false, place.before});
  }
  expiries_.emplace(lease.expiry, lease.id);
  ++users_[lease.ask.function];
  leases_.emplace(lease.id, std::move(lease));
}

void LeaseTable::restore_held(const HeldRow& row) {
  const auto found = nodes_.find(row.key.first);
  if (found == nodes_.end()) {  // Its node is gone, and so is what it held.
    dirty_held_.insert(row.key);
    return;
  }
  Node& node = found->second;
  Worker& worker =
      add_worker(node, {.id = row.key.second, .endpoints = row.endpoints, .function = row.loaded});
  worker.lease = row.lease;
  worker.since = row.since;
  worker.cores = row.cores;
  worker.gpus = row.gpus;
  worker.memory_bytes = row.memory_bytes;
  node.held += {row.cores, row.gpus, row.memory_bytes};
  const auto lease = leases_.find(row.lease);
  bool in_lease = false;
  if (lease != leases_.end() && !row.ending) {
    for (Place& place : lease->second.places) {
      if (place.node != row.key.first || place.worker != row.key.second) continue;
      place.live = true;
      in_lease = true;
    }
  }
  set_state(node, worker, in_lease ? Worker::State::granted : Worker::State::ending);
}

/// What had ended when the manager did is told again: the node may not have heard it.
void LeaseTable::tell_ending() {
  for (auto& [id, node] : nodes_) {
    for (auto& [worker_id, worker] : node.workers) {
      if (worker.state != Worker::State::ending) continue;
      const bool whole = !leases_.contains(worker.lease);
      worker.end_sequence = command(node, {.kind = whole ? "end_lease" : "end_worker",
                                           .lease = worker.lease,
                                           .reason = whole ? "ended" : "replaced",
                                           .worker = whole ? 0 : worker_id});
    }
  }
}

}  // namespace sublet::lease
