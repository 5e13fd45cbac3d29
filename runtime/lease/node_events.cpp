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

/// Or why it will be; empty when nobody wants anything of it.
std::string why_cordoned(const Node& node) {
  if (!node.site.why.empty()) return node.site.why;
  if (node.cordoned) return "cordoned by an operator";
  return node.own_end != Time::max() ? "its agent lends it for a time only" : "";
}

constexpr std::size_t transports_counted_max = 16;
constexpr const char* transport_uncounted = "other";

}  // namespace

Result<Node*> LeaseTable::find_node(NodeId id) {
  const auto found = nodes_.find(id);
  if (found == nodes_.end() || found->second.lost) {
    return Error(Errc::not_found, "there is no node " + std::to_string(id) + " now: register it again");
  }
  return &found->second;
}

Result<NodeId> LeaseTable::register_node(const api::NodeRegistration& about, const SecretKey& key, Time now) {
  if (Status good = check(about); !good) return good.error();
  if (const auto known = names_.find(about.name); known != names_.end()) {
    const NodeId old = known->second;
    if (!nodes_.at(old).lost) lose_node(nodes_.at(old), "registered again", now);
    forget_node(old);
  }
  if (nodes_.size() >= limits::nodes_max) {
    const auto lost =
        std::find_if(nodes_.begin(), nodes_.end(), [](const auto& entry) { return entry.second.lost; });
    if (lost == nodes_.end()) {
      return Error(Errc::no_capacity,
                   std::to_string(nodes_.size()) + " nodes are registered: the most there may be");
    }
    forget_node(lost->first);
  }
  const NodeId id = next_id_++;
  Node& node = nodes_[id];
  node.id = id;
  node.about = about;
  node.key = key;
  node.heard = now;
  names_[about.name] = id;
  heard_.emplace(node.heard, id);
  total_ += node.total();
  dirty_nodes_.insert(id);
  obey_orders(node);
  start_probation(node, now);
  changes_.events.push_back("node " + about.name + " registered as " + std::to_string(id) + " with " +
                            std::to_string(about.cores) + " cores" +
                            (node.on_probation() ? ", on probation: it was lost too often" : ""));
  return id;
}

/// What was ordered for the name holds for its new registration.
void LeaseTable::obey_orders(Node& node) {
  const auto orders = orders_.find(node.about.name);
  if (orders == orders_.end()) return;
  node.cordoned = orders->second.cordoned;
  node.drain_ordered = orders->second.drained;
  if (node.drain_ordered) command(node, {.kind = "drain"});
}

/// A node that was lost twice lately is not granted at once: each loss more doubles the wait.
void LeaseTable::start_probation(Node& node, Time now) {
  const auto flaps = flaps_.find(node.about.name);
  if (flaps == flaps_.end()) return;
  if (flaps->second.last + limits::flap_memory <= now) {
    flaps_.erase(flaps);
    return;
  }
  if (flaps->second.losses < limits::flaps_free_max + 1) return;
  const std::uint32_t doublings = std::min(flaps->second.losses - limits::flaps_free_max - 1, 16U);
  const std::chrono::milliseconds wait =
      std::min(limits::probation_first * (1U << doublings), limits::probation_max);
  node.probation_end = now + wait;
  probations_.emplace(node.probation_end, node.id);
  candidates_.update(node);
}

Result<bool> LeaseTable::heartbeat(NodeId id, const api::Heartbeat& said, Time now) {
  const Result<Node*> found = find_node(id);
  if (!found) return found.error();
  if (Status good = check(said); !good) return good.error();
  Node& node = **found;
  heard_.erase({node.heard, id});
  node.heard = std::max(node.heard, now);
  heard_.emplace(node.heard, id);
  if (node.commands.size() > limits::node_commands_max) {
    lose_node(node, "it does not take its commands", now);
    return find_node(id).error();
  }
  note_ended(node, said);
  if (!said.unchanged) {
    hear_lists(node, said, now);
  } else if (node.count_of(Worker::State::ending) > 0) {
    for (auto& [worker_id, worker] : node.workers) {
      if (worker.listed_ready) settle_ending(node, worker);
    }
  }
  return !node.said_all;
}

void LeaseTable::hear_lists(Node& node, const api::Heartbeat& said, Time now) {
  // It was told to drain once, and perhaps not that this is over.
  if (!node.said_all && said.draining && !node.drain_ordered) command(node, {.kind = "undrain"});
  node.said_all = true;
  changes_.capacity = changes_.capacity || (node.drain_said && !said.draining);
  node.drain_said = said.draining;
  if (said.cores > 0) hear_capacity(node, {said.cores, node.about.gpus, said.memory_bytes});
  ++node.lists;
  const auto name = [&](WorkerId id) {
    if (const auto worker = node.workers.find(id); worker != node.workers.end())
      worker->second.list = node.lists;
  };
  for (const api::WorkerInfo& info : said.ready) name(info.id);
  for (const api::Heartbeat::Serving& serving : said.serving) name(serving.worker);
  forget_absent(node, now);
  for (const api::WorkerInfo& info : said.ready) hear_ready(node, info);
  for (const api::Heartbeat::Serving& serving : said.serving) hear_serving(node, serving, now);
  node.own_end = said.lends_ms > 0 ? now + std::chrono::milliseconds(said.lends_ms) : Time::max();
  follow_end(node, now);
}

/// What leases hold of a node that has shrunk stays counted until the node says that their workers have
/// ended.
void LeaseTable::hear_capacity(Node& node, const Resources& capacity) {
  if (capacity == node.total()) return;
  total_ -= node.total();
  node.about.cores = capacity.cores;
  node.about.memory_bytes = capacity.memory_bytes;
  total_ += node.total();
  dirty_nodes_.insert(node.id);
  changes_.capacity = true;
}

void LeaseTable::note_ended(Node& node, const api::Heartbeat& said) {
  for (const api::Heartbeat::Ended& ended : said.ended) {
    // Its client may have come and gone between two heartbeats.
    if (const auto worker = node.workers.find(ended.worker);
        worker != node.workers.end() && worker->second.lease == ended.lease) {
      note_transport(worker->second, ended.transport);
    }
    if (ended.reason != "crashed" && ended.reason != "out_of_memory" && ended.reason != "overrun") continue;
    changes_.events.push_back("worker " + std::to_string(ended.worker) + " of node " + node.about.name +
                              " ended under lease " + std::to_string(ended.lease) + ": " + ended.reason);
  }
}

void LeaseTable::forget_absent(Node& node, Time now) {
  std::vector<WorkerId> absent;
  for (const auto& [id, worker] : node.workers) {
    if (worker.list != node.lists) absent.push_back(id);
  }
  for (const WorkerId id : absent) {
    worker_gone(node, node.workers.at(id), false, now);
    remove_worker(node, id);
  }
}

void LeaseTable::hear_ready(Node& node, const api::WorkerInfo& info) {
  Worker& worker = add_worker(node, info);
  worker.listed_ready = true;
  settle_ending(node, worker);
}

/// A granted worker stays granted: its client may be on the way, or this was written before the grant.
void LeaseTable::settle_ending(Node& node, Worker& worker) {
  if (worker.state != Worker::State::ending || node.taken < worker.end_sequence) return;
  if (++worker.heard_since >= heartbeats_after_command) give_back(node, worker);
}

void LeaseTable::hear_serving(Node& node, const api::Heartbeat::Serving& serving, Time now) {
  Worker& worker = node.workers.contains(serving.worker)
                       ? node.workers.at(serving.worker)
                       : add_worker(node, {.id = serving.worker, .endpoints = {}});
  worker.listed_ready = false;
  if (worker.lease == serving.lease) {
    if (worker.state == Worker::State::granted) set_state(node, worker, Worker::State::serving);
    note_transport(worker, serving.transport);
    return;
  }
  // It serves what was granted by nobody known: by a manager or a registration before this one.
  worker_gone(node, worker, false, now);
  worker.foreign = true;
  ++node.foreign;
  worker.lease = serving.lease;
  set_state(node, worker, Worker::State::ending);
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

void LeaseTable::note_transport(Worker& worker, const std::string& transport) {
  if (worker.transport == transport || !worker.info.endpoints.contains(transport)) return;
  if (!worker.transport.empty()) --connected_[worker.transport];
  // Nodes choose the names, and each becomes a label.
  const bool room = connected_.size() < transports_counted_max || connected_.contains(transport);
  worker.transport = room ? transport : transport_uncounted;
  ++connected_[worker.transport];
  ++counts_.connections[worker.transport];
}

/// Frees what the worker held and marks its place in an active lease. It is left as a ready one.
void LeaseTable::worker_gone(Node& node, Worker& worker, bool with_node, Time now) {
  if (worker.state == Worker::State::granted || worker.state == Worker::State::serving) {
    Lease& lease = leases_.at(worker.lease);
    for (Place& place : lease.places) {
      if (!place.live || place.node != node.id || place.worker != worker.info.id) continue;
      vacate(lease, place, now);
      lease.node_lost = lease.node_lost || with_node;
      ++counts_.workers_lost;
    }
  }
  give_back(node, worker);
}

void LeaseTable::lose_node(Node& node, const std::string& why, Time now) {
  for (auto& [id, worker] : node.workers) worker_gone(node, worker, true, now);
  node.workers.clear();
  node.ready.clear();
  node.count = {};
  node.commands.clear();
  node.lost = true;
  candidates_.remove(node.id);
  heard_.erase({node.heard, node.id});
  if (node.on_probation()) probations_.erase({std::exchange(node.probation_end, {}), node.id});
  if (node.end_step != Time{}) ends_.erase({std::exchange(node.end_step, {}), node.id});
  total_ -= node.total();
  dirty_nodes_.insert(node.id);
  ++counts_.nodes_lost;
  Flaps& flaps = flaps_[node.about.name];
  flaps.losses = flaps.last + limits::flap_memory > now ? flaps.losses + 1 : 1;
  flaps.last = now;
  changes_.commands.insert(node.id);
  changes_.events.push_back("node " + node.about.name + " (" + std::to_string(node.id) + ") is lost: " + why);
}

void LeaseTable::forget_node(NodeId id) {
  names_.erase(nodes_.at(id).about.name);
  dirty_nodes_.insert(id);
  nodes_.erase(id);
}

Status LeaseTable::remove_node(NodeId id, Time now) {
  const Result<Node*> found = find_node(id);
  if (!found) return found.error();
  const std::string name = (*found)->about.name;
  const auto before = flaps_.find(name);
  const std::optional<Flaps> flaps = before != flaps_.end() ? std::optional(before->second) : std::nullopt;
  lose_node(**found, "it has left", now);
  --counts_.nodes_lost;  // It said so itself.
  flaps_.erase(name);
  if (flaps) flaps_[name] = *flaps;
  forget_node(id);
  return {};
}

Result<api::NodeInfo> LeaseTable::set_draining(NodeId id, bool draining, Time now) {
  const Result<Node*> found = find_node(id);
  if (!found) return found.error();
  Node& node = **found;
  if (node.drain_ordered != draining) {
    node.drain_ordered = draining;
    orders_[node.about.name].drained = draining;
    dirty_orders_.insert(node.about.name);
    command(node, {.kind = draining ? "drain" : "undrain"});
    changes_.capacity = changes_.capacity || !draining;
    candidates_.update(node);
  }
  return this->node(id, now);
}

Result<api::NodeInfo> LeaseTable::set_cordoned(NodeId id, bool cordoned, Time now) {
  const Result<Node*> found = find_node(id);
  if (!found) return found.error();
  Node& node = **found;
  if (node.cordoned != cordoned) {
    node.cordoned = cordoned;
    orders_[node.about.name].cordoned = cordoned;
    dirty_orders_.insert(node.about.name);
    changes_.capacity = changes_.capacity || !cordoned;
    candidates_.update(node);
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
    if (worker.lease != lease || worker.foreign || worker.state == Worker::State::ending) continue;
    worker.end_sequence = sequence;
    set_state(node, worker, Worker::State::ending);
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

void LeaseTable::forgive_silence(Time now) {
  heard_.clear();
  for (auto& [id, node] : nodes_) {
    if (node.lost) continue;
    node.heard = std::max(node.heard, now);
    heard_.emplace(node.heard, id);
  }
}

api::Nodes LeaseTable::nodes(Time now) const {
  api::Nodes all;
  for (const auto& [id, node] : nodes_) all.nodes.push_back(*this->node(id, now));
  return all;
}

Result<api::NodeInfo> LeaseTable::node(NodeId id, Time now) const {
  const auto found = nodes_.find(id);
  if (found == nodes_.end()) return Error(Errc::not_found, "there is no node " + std::to_string(id));
  const Node& node = found->second;
  const auto ms = [](Time later, Time earlier) {
    return later > earlier ? static_cast<std::uint64_t>(
                                 std::chrono::ceil<std::chrono::milliseconds>(later - earlier).count())
                           : 0;
  };
  return api::NodeInfo{
      .node = id,
      .name = node.about.name,
      .state = state_name(node),
      .cores = node.about.cores,
      .cores_leased = node.held.cores,
      .memory_bytes = node.about.memory_bytes,
      .memory_leased = node.held.memory_bytes,
      .workers_ready = node.count_of(Worker::State::ready),
      .workers_serving = node.count_of(Worker::State::serving),
      .gpus = node.about.gpus,
      .gpus_leased = node.held.gpus,
      .silent_ms = ms(now, node.heard),
      .probation_ms = node.on_probation() ? ms(node.probation_end, now) : 0,
      .version = node.about.version,
      .why = why_cordoned(node),
      .ends_in_ms = node.end() != Time::max() ? std::max(ms(node.end(), now), std::uint64_t{1}) : 0};
}

}  // namespace sublet::lease
