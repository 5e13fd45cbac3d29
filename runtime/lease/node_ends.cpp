// The part of LeaseTable that gives nodes back to their owner in time.

#include <algorithm>

#include "runtime/base/limits.hpp"
#include "runtime/lease/lease_table.hpp"

namespace sublet::lease {

Status LeaseTable::set_site_order(NodeId id, const SiteOrder& order, Time now) {
  const Result<Node*> found = find_node(id);
  if (!found) return found.error();
  Node& node = **found;
  if (node.site == order) return {};
  const bool admitted = node.admits();
  // Leases that are renewed meanwhile do not put the end of a cordoned node off.
  const bool runs_out = order.cordon && !order.end;
  const bool ran_out = node.site.cordon && !node.site.end;
  if (!runs_out) {
    node.site_end = order.end.value_or(Time::max());
  } else if (!ran_out) {
    node.site_end = last_expiry(node, now) + limits::lending_notice;
  }
  if (node.site.why != order.why) {
    changes_.events.push_back("node " + node.about.name + ": " +
                              (order.why.empty() ? "its owner wants nothing of it any more" : order.why));
  }
  node.site = order;
  follow_end(node, now);
  changes_.capacity = changes_.capacity || (!admitted && node.admits());
  return {};
}

/// Of the leases that have a worker there; `now` when there is none.
Time LeaseTable::last_expiry(const Node& node, Time now) const {
  Time last = now;
  for (const auto& [id, worker] : node.workers) {
    const auto lease = leases_.find(worker.lease);
    if (lease != leases_.end()) last = std::max(last, lease->second.expiry);
  }
  return last;
}

/// First it is granted no more, then it is taken back, with notice for the calls in flight.
void LeaseTable::follow_end(Node& node, Time now) {
  if (node.end_step != Time{}) ends_.erase({std::exchange(node.end_step, {}), node.id});
  const Time back = node.end() - limits::lending_notice;
  const Time close = back - limits::lending_least;
  const bool was_closed = std::exchange(node.closed, close <= now);
  if (back <= now) {
    take_back(node, now);
  } else if (node.end() != Time::max()) {
    node.end_step = node.closed ? back : close;
    ends_.emplace(node.end_step, node.id);
  }
  changes_.capacity = changes_.capacity || (was_closed && !node.closed);
  candidates_.update(node);
}

/// Leases lose their workers there and may replace them elsewhere.
void LeaseTable::take_back(Node& node, Time now) {
  for (auto& [id, worker] : node.workers) {
    if (worker.state != Worker::State::granted && worker.state != Worker::State::serving) continue;
    Lease& lease = leases_.at(worker.lease);
    for (Place& place : lease.places) {
      if (place.live && place.node == node.id && place.worker == id) vacate(lease, place, now);
    }
    worker.end_sequence =
        command(node, {.kind = "end_worker", .lease = lease.id, .reason = "revoked", .worker = id});
    set_state(node, worker, Worker::State::ending);
    ++counts_.workers_taken_back;
  }
}

void LeaseTable::pass_ends(Time now) {
  while (!ends_.empty() && ends_.begin()->first <= now) follow_end(nodes_.at(ends_.begin()->second), now);
}

}  // namespace sublet::lease
