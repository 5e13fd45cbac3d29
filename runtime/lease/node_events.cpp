// The part of LeaseTable that hears from nodes and tells them.

#include <algorithm>

#include "runtime/base/assert.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/lease/checks.hpp"
#include "runtime/lease/lease_table.hpp"

namespace sublet::lease {
namespace {

// The first heartbeat after a node has taken a command may have been written before it; the next one was
// written after the first was answered.
constexpr std::uint32_t heartbeats_after_command = 2;

}  // namespace

Result<Node*> LeaseTable::find_node(NodeId id) {
  const auto found = nodes_.find(id);
  if (found == nodes_.end() || found->second.lost) {
    return Error(Errc::not_found, "there is no node " + std::to_string(id) + " now: register it again");
  }
  return &found->second;
}

Result<NodeId> LeaseTable::register_node(const api::NodeRegistration& about, const SecretKey& key, Now now) {
  if (Status good = check(about); !good) return good.error();
  if (const auto known = names_.find(about.name); known != names_.end()) {
    const NodeId old = known->second;
    if (!nodes_.at(old).lost) lose_node(nodes_.at(old), "registered again");
    nodes_.erase(old);
    names_.erase(known);
  }
  if (nodes_.size() >= limits::nodes_max) {
    const auto lost =
        std::find_if(nodes_.begin(), nodes_.end(), [](const auto& entry) { return entry.second.lost; });
    if (lost == nodes_.end()) {
      return Error(Errc::no_capacity,
                   std::to_string(nodes_.size()) + " nodes are registered: the most there may be");
    }
    names_.erase(lost->second.about.name);
    nodes_.erase(lost);
  }
  const NodeId id = next_id_++;
  Node& node = nodes_[id];
  node.id = id;
  node.about = about;
  node.key = key;
  node.heard = now.steady;
  names_[about.name] = id;
  heard_.emplace(node.heard, id);
  changes_.events.push_back("node " + about.name + " registered as " + std::to_string(id) + " with " +
                            std::to_string(about.cores) + " cores");
  return id;
}

Status LeaseTable::heartbeat(NodeId id, const api::Heartbeat& said, Now now) {
  const Result<Node*> found = find_node(id);
  if (!found) return found.error();
  if (Status good = check(said); !good) return good;
  Node& node = **found;
  heard_.erase({node.heard, id});
  node.heard = now.steady;
  heard_.emplace(node.heard, id);
  node.drain_said = said.draining;
  if (node.commands.size() > limits::node_commands_max) {
    lose_node(node, "it does not take its commands");
    return find_node(id).error();
  }
  note_ended(node, said);

  std::set<WorkerId> present;
  for (const api::WorkerInfo& info : said.ready) present.insert(info.id);
  for (const api::Heartbeat::Serving& serving : said.serving) present.insert(serving.worker);
  forget_absent(node, present);
  for (const api::WorkerInfo& info : said.ready) hear_ready(node, info);
  for (const api::Heartbeat::Serving& serving : said.serving) hear_serving(node, serving);
  return {};
}

void LeaseTable::note_ended(const Node& node, const api::Heartbeat& said) {
  for (const api::Heartbeat::Ended& ended : said.ended) {
    if (ended.reason != "crashed" && ended.reason != "out_of_memory" && ended.reason != "overrun") continue;
    changes_.events.push_back("worker " + std::to_string(ended.worker) + " of node " + node.about.name +
                              " ended under lease " + std::to_string(ended.lease) + ": " + ended.reason);
  }
}

void LeaseTable::forget_absent(Node& node, const std::set<WorkerId>& present) {
  for (auto it = node.workers.begin(); it != node.workers.end();) {
    if (present.contains(it->first)) {
      ++it;
      continue;
    }
    worker_gone(node, it->second, false);
    it = node.workers.erase(it);
  }
}

void LeaseTable::hear_ready(Node& node, const api::WorkerInfo& info) {
  const auto [at, fresh] = node.workers.try_emplace(info.id);
  Worker& worker = at->second;
  worker.info = info;
  if (fresh) changes_.capacity = true;
  // A granted worker stays granted: its client may be on the way, or this was written before the grant.
  if (worker.state != Worker::State::ending || node.taken < worker.end_sequence) return;
  if (++worker.heartbeats_since >= heartbeats_after_command) {
    node.give_back(worker);
    changes_.capacity = true;
  }
}

void LeaseTable::hear_serving(Node& node, const api::Heartbeat::Serving& serving) {
  Worker& worker = node.workers[serving.worker];
  if (worker.lease == serving.lease && worker.state == Worker::State::granted) {
    worker.state = Worker::State::serving;
  }
  if (worker.lease == serving.lease) return;
  // It serves what was granted by nobody known: by a manager or a registration before this one.
  worker_gone(node, worker, false);
  worker.info.id = serving.worker;
  worker.state = Worker::State::ending;
  worker.lease = serving.lease;
  worker.foreign = true;
  ++node.foreign;
  const auto active = leases_.find(serving.lease);
  const bool lease_is_here =
      active != leases_.end() &&
      std::any_of(active->second.places.begin(), active->second.places.end(),
                  [&](const Place& place) { return place.live && place.node == node.id; });
  worker.end_sequence = command(node, {.kind = lease_is_here ? "end_worker" : "end_lease",
                                       .lease = serving.lease,
                                       .reason = "unknown",
                                       .worker = lease_is_here ? serving.worker : 0});
}

/// Frees what the worker held and marks its place in an active lease. It is left as a ready one.
void LeaseTable::worker_gone(Node& node, Worker& worker, bool with_node) {
  const Worker was = worker;
  node.give_back(worker);
  changes_.capacity = changes_.capacity || was.lease != 0;
  if (was.state != Worker::State::granted && was.state != Worker::State::serving) return;
  Lease& lease = leases_.at(was.lease);
  for (Place& place : lease.places) {
    if (!place.live || place.node != node.id || place.worker != was.info.id) continue;
    place.live = false;
    lease.node_lost = lease.node_lost || with_node;
    ++counts_.workers_lost;
  }
}

void LeaseTable::lose_node(Node& node, const std::string& why) {
  for (auto& [id, worker] : node.workers) worker_gone(node, worker, true);
  node.workers.clear();
  node.commands.clear();
  node.lost = true;
  heard_.erase({node.heard, node.id});
  ++counts_.nodes_lost;
  changes_.commands.insert(node.id);
  changes_.events.push_back("node " + node.about.name + " (" + std::to_string(node.id) + ") is lost: " + why);
}

Status LeaseTable::remove_node(NodeId id) {
  const Result<Node*> found = find_node(id);
  if (!found) return found.error();
  lose_node(**found, "it has left");
  --counts_.nodes_lost;  // It said so itself.
  names_.erase((*found)->about.name);
  nodes_.erase(id);
  return {};
}

Result<api::NodeInfo> LeaseTable::set_draining(NodeId id, bool draining, Now now) {
  const Result<Node*> found = find_node(id);
  if (!found) return found.error();
  Node& node = **found;
  if (node.drain_ordered != draining) {
    node.drain_ordered = draining;
    command(node, {.kind = draining ? "drain" : "undrain"});
    changes_.capacity = changes_.capacity || !draining;
  }
  return this->node(id, now);
}

std::uint64_t LeaseTable::command(Node& node, api::Command what) {
  what.sequence = ++node.sequence;
  node.commands.push_back(std::move(what));
  changes_.commands.insert(node.id);
  return node.sequence;
}

/// One command for all of the lease's workers on the node.
void LeaseTable::tell_end(Node& node, LeaseId lease, const std::string& reason) {
  const std::uint64_t sequence = command(node, {.kind = "end_lease", .lease = lease, .reason = reason});
  for (auto& [id, worker] : node.workers) {
    if (worker.lease != lease || worker.state == Worker::State::ending) continue;
    worker.state = Worker::State::ending;
    worker.end_sequence = sequence;
  }
}

Result<api::Commands> LeaseTable::commands_after(NodeId id, std::uint64_t after) {
  const Result<Node*> found = find_node(id);
  if (!found) return found.error();
  Node& node = **found;
  if (after > node.sequence) {
    return Error(
        Errc::invalid_argument,
        "after=" + std::to_string(after) + " was never sent: the newest is " + std::to_string(node.sequence));
  }
  node.taken = std::max(node.taken, after);
  while (!node.commands.empty() && node.commands.front().sequence <= node.taken) node.commands.pop_front();
  return api::Commands{{node.commands.begin(), node.commands.end()}};
}

void LeaseTable::announce_function(const std::string& kind, FunctionId function) {
  for (auto& [id, node] : nodes_) {
    if (!node.lost) command(node, {.kind = kind, .function = function});
  }
}

void LeaseTable::announce_function_to(NodeId id, const std::string& kind, FunctionId function) {
  command(nodes_.at(id), {.kind = kind, .function = function});
}

void LeaseTable::forgive_silence(Now now) {
  heard_.clear();
  for (auto& [id, node] : nodes_) {
    if (node.lost) continue;
    node.heard = now.steady;
    heard_.emplace(node.heard, id);
  }
}

api::Nodes LeaseTable::nodes(Now now) const {
  api::Nodes all;
  for (const auto& [id, node] : nodes_) all.nodes.push_back(*this->node(id, now));
  return all;
}

Result<api::NodeInfo> LeaseTable::node(NodeId id, Now now) const {
  const auto found = nodes_.find(id);
  if (found == nodes_.end()) return Error(Errc::not_found, "there is no node " + std::to_string(id));
  const Node& node = found->second;
  const auto silent = std::chrono::duration_cast<std::chrono::milliseconds>(now.steady - node.heard);
  api::NodeInfo info{.node = id,
                     .name = node.about.name,
                     .state = node.lost       ? "lost"
                              : node.admits() ? "up"
                                              : "draining",
                     .cores = node.about.cores,
                     .cores_leased = node.cores_held,
                     .memory_bytes = node.about.memory_bytes,
                     .memory_leased = node.memory_held,
                     .silent_ms = static_cast<std::uint64_t>(std::max<std::int64_t>(silent.count(), 0))};
  for (const auto& [worker_id, worker] : node.workers) {
    if (worker.state == Worker::State::ready) ++info.workers_ready;
    if (worker.state == Worker::State::serving) ++info.workers_serving;
  }
  return info;
}

}  // namespace sublet::lease
