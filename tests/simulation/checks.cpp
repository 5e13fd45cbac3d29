// What must always hold, and what must hold when all has come to rest.

#include <algorithm>

#include "runtime/wire/handshake.hpp"
#include "tests/simulation/simulation.hpp"

namespace sublet::simulation {
namespace {

using std::chrono::milliseconds;

constexpr int rest_rounds_max = 400;
constexpr milliseconds round{500};

}  // namespace

/// What the workers really do: nothing beyond the time of a lease, whatever the manager believes.
void Simulation::check_step() const {
  for (const Agent& agent : agents_) {
    for (const auto& [number, process] : agent.node.processes()) {
      if (process.token.lease == 0) continue;
      require(process.token.expiry_ms > now_ms(), "a worker serves a lease that has run out");
    }
  }
}

/// What is promised now is over when the node's owner wants it back, and nothing is promised of what is his.
void Simulation::check_ends(const api::LeaseGrant& grant) const {
  for (const api::GrantedWorker& worker : grant.workers) {
    const auto end = ends_ms_.find(worker.node);
    if (end == ends_ms_.end()) continue;
    const auto token = wire::parse_token(worker.token);
    require(token.ok() && token->token.expiry_ms <= end->second, "a token outlives the node's time");
  }
}

void Simulation::check_table() {
  const lease::LeaseTable& table = manager_.table();
  for (const auto& [id, node] : table.state()) {
    lease::Resources held;
    std::uint32_t foreign = 0;
    for (const auto& [number, worker] : node.workers) {
      held += {worker.cores, worker.gpus, worker.memory_bytes};
      foreign += worker.foreign ? 1 : 0;
      if (worker.state == lease::Worker::State::ready)
        require(worker.lease == 0 && worker.cores == 0, "a ready worker holds something");
    }
    require(held.cores == node.held.cores && held.memory_bytes == node.held.memory_bytes,
            "a node's sums are not those of its workers");
    require(held.cores <= node.about.cores, "a node has more cores leased than it has");
    require(foreign == node.foreign, "a node's foreign workers are miscounted");
    if (node.lost) require(node.workers.empty(), "a lost node has workers");
  }
  std::set<std::pair<std::uint64_t, std::uint32_t>> leased;
  for (const api::LeaseInfo& info : table.leases({.state = "active"}).leases) {
    require(info.reason.empty(), "an active lease has a reason for its end");
    for (const api::GrantedWorker& worker : info.workers)
      require(leased.emplace(worker.node, worker.worker).second, "a worker is in two leases");
  }
  for (const Agent& agent : agents_) {
    for (const auto& [number, process] : agent.node.processes()) {
      if (process.token.lease == 0) continue;
      const auto info = table.lease(process.token.lease);
      require(info.ok(), "a worker serves a lease that the manager does not know");
      require(info->expiry_ms >= process.token.expiry_ms, "a token outlives its lease");
    }
  }
  const auto bounded = table.tenants().find("bounded");
  if (bounded == table.tenants().end()) return;
  require(bounded->second.held.cores <= bounded->second.policy.cores_max &&
              bounded->second.leases <= bounded->second.policy.leases_max,
          "a tenant holds more than its quota");
}

/// Every lease has ended, once and with a reason; nothing is held by anybody.
void Simulation::check_disk() {
  for (const auto& [id, row] : manager_.disk().leases()) {
    require(!row.reason.empty(), "a lease never ends");
    const auto info = manager_.table().lease(id);
    require(info.ok() && info->reason == row.reason, "a lease ended for two reasons");
    require(row.ended >= row.granted && row.ended <= row.expiry, "a lease's end lies outside of its time");
    const auto most = (row.expiry - row.granted) * row.workers_used;
    require(row.lease_time >= milliseconds(0) && row.lease_time <= most,
            "a lease's time is more than it had");
  }
  require(manager_.disk().held().empty(), "a worker is held for ever");
  require(manager_.table().active() == 0, "a lease is active for ever");
  for (const auto& [name, tenant] : manager_.table().tenants())
    require(tenant.leases == 0 && tenant.held.cores == 0, "a tenant holds something for ever");
}

/// No more chaos: one node is drained under its leases, then all clients leave.
void Simulation::come_to_rest() {
  tell("no more chaos");
  for (Agent& agent : agents_) {
    agent.node.silent = false;
    agent.node.set_draining(false);
  }
  const auto known = [this](const Agent& agent) {
    const auto node = manager_.table().state().find(agent.node.id);
    return node != manager_.table().state().end() && !node->second.lost;
  };
  const auto empty = [&](const Agent& agent) {
    if (!known(agent)) return false;
    const lease::Node& node = manager_.table().state().at(agent.node.id);
    return !agent.node.serves() && node.held.cores == 0 && node.foreign == 0 &&
           node.count_of(lease::Worker::State::ending) == 0;
  };
  settle_until("a node is never known again",
               [&] { return std::all_of(agents_.begin(), agents_.end(), known); });
  const Agent& drained = agents_[below(static_cast<std::uint32_t>(agents_.size()))];
  require(manager_.table().set_draining(drained.node.id, true, time()).ok(), "a node cannot be drained");
  settle_until("a drained node does not end empty", [&] { return empty(drained); });
  settle_until("the site does not come to rest", [&] {
    end_clients();
    return manager_.table().active() == 0 && !manager_.table().dirty() &&
           std::all_of(agents_.begin(), agents_.end(), empty);
  });
  check_step();
  check_table();
  check_disk();
}

void Simulation::settle_until(const char* otherwise, const std::function<bool()>& done) {
  for (int rounds = 0; !done(); ++rounds) {
    require(rounds < rest_rounds_max, otherwise);
    settle();
  }
}

void Simulation::end_clients() {
  for (const auto& [id, client] : std::exchange(clients_, {})) {
    for (Agent& agent : agents_) agent.node.leave(id);
    static_cast<void>(manager_.table().end(id, "released", time()));
  }
}

/// Half a second in which everything arrives.
void Simulation::settle() {
  steady_ += round;
  for (Agent& agent : agents_) {
    agent.node.pass(now_ms());
    report(agent);
    poll_commands(agent);
  }
  for (int more = 0; more < 4; ++more) {
    for (const Request& request : std::exchange(requests_, {})) request.arrive();
    manager_.write(steady_);
    for (const auto& answer : std::exchange(answers_, {})) answer();
  }
  for (Agent& agent : agents_) {
    if (agent.heartbeat != 0 || agent.poll != 0 || agent.registering) give_up(agent);  // Lost after all.
  }
  manager_.table().tick(time());
}

}  // namespace sublet::simulation
