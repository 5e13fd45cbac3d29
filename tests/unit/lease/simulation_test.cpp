// Random nodes, clients and message delays against the lease table, with what must always hold. The seed is
// printed; SUBLET_SIMULATION_SEED replays one.

#include <cstdlib>
#include <deque>
#include <iostream>
#include <map>
#include <random>
#include <set>

#include "runtime/base/limits.hpp"
#include "runtime/lease/lease_table.hpp"
#include "tests/catch.hpp"

using namespace sublet;

namespace {

/// A node as it really is: what the manager knows of it is late.
struct Agent {
  struct Process {
    std::uint64_t lease = 0;  // 0: ready.
    std::uint32_t cores = 0;
  };
  std::string name;
  std::uint64_t id = 0;
  std::uint32_t cores = 0;
  std::map<std::uint32_t, Process> processes;
  std::uint32_t next_worker = 1;
  std::uint64_t taken = 0;
  bool silent = false;
  std::deque<api::Heartbeat> sent;  // One at a time, as an agent does; delivered later.

  [[nodiscard]] std::uint32_t cores_used() const {
    std::uint32_t used = 0;
    for (const auto& [worker, process] : processes) used += process.cores;
    return used;
  }
};

struct Client {
  api::LeaseGrant grant;
  std::uint32_t cores = 0;
  std::set<std::pair<std::uint64_t, std::uint32_t>> connected;
};

class Simulation {
 public:
  explicit Simulation(std::uint64_t seed) : random_(seed) {
    for (int i = 0; i < 4; ++i) {
      Agent agent{.name = std::string(1, static_cast<char>('a' + i)), .cores = 2 + below(6)};
      start(agent);
      agents_.push_back(agent);
    }
  }

  void step() {
    const auto time = std::chrono::milliseconds(below(400));
    now_ += time;
    Agent& agent = agents_[below(static_cast<std::uint32_t>(agents_.size()))];
    switch (below(14)) {
      case 0:
      case 1:
      case 2:
        heartbeat_all();
        break;
      case 3:
        take_commands(agent);
        break;
      case 4:
      case 5:
        acquire();
        break;
      case 6:
      case 7:
        connect();
        break;
      case 8:
        finish();
        break;
      case 9:
        die(agent);
        break;
      case 10:
        renew();
        break;
      case 11:
        replace();
        break;
      case 12:
        upset(agent);
        break;
      default:
        table_.tick(now_);
        break;
    }
    check();
  }

 private:
  std::uint32_t below(std::uint32_t bound) {
    return std::uniform_int_distribution<std::uint32_t>(0, bound - 1)(random_);
  }

  void start(Agent& agent) {
    agent.id = table_.register_node({agent.name, "boot", agent.cores, 1ULL << 34, 1, "1"}, SecretKey{}, now_)
                   .value();
    agent.taken = 0;
    agent.sent.clear();
    std::erase_if(agent.processes, [](const auto& entry) { return entry.second.lease == 0; });
    refill(agent);
  }

  static void refill(Agent& agent) {
    std::uint32_t ready = 0;
    for (const auto& [worker, process] : agent.processes) ready += process.lease == 0 ? 1 : 0;
    for (; ready < agent.cores; ++ready) agent.processes[agent.next_worker++] = {};
  }

  /// Each agent writes one heartbeat when its last was delivered; some are delivered.
  void heartbeat_all() {
    for (Agent& agent : agents_) {
      if (agent.silent) continue;
      if (agent.sent.empty()) agent.sent.push_back(truth(agent));
      if (below(2) == 0) continue;
      const Result<bool> heard = table_.heartbeat(agent.id, agent.sent.front(), now_);
      agent.sent.pop_front();
      if (!heard) {
        REQUIRE(heard.error().code() == Errc::not_found);
        start(agent);
      }
    }
  }

  static api::Heartbeat truth(const Agent& agent) {
    api::Heartbeat said;
    for (const auto& [worker, process] : agent.processes) {
      if (process.lease == 0) said.ready.push_back({worker, {{"tcp", "a:1"}}, 0});
      if (process.lease != 0) said.serving.push_back({worker, process.lease});
    }
    return said;
  }

  void take_commands(Agent& agent) {
    const Result<api::Commands> commands = table_.commands_after(agent.id, agent.taken);
    if (!commands) return;
    for (const api::Command& command : commands->commands) {
      REQUIRE(command.sequence == agent.taken + 1);
      agent.taken = command.sequence;
      std::erase_if(agent.processes, [&](const auto& entry) {
        const auto& [worker, process] = entry;
        return process.lease == command.lease &&
               (command.kind == "end_lease" || (command.kind == "end_worker" && command.worker == worker));
      });
      ended_at_[agent.id].insert(command.lease);
    }
    refill(agent);
  }

  void acquire() {
    lease::Ask ask{1, "f@1", {}};
    ask.request.workers = 1 + below(4);
    ask.request.cores = 1 + below(2);
    ask.request.ttl_ms = 1000 + below(5000);
    const Result<api::LeaseGrant> grant = table_.grant(ask, now_);
    if (!grant) {
      REQUIRE(grant.error().code() == Errc::no_capacity);
      return;
    }
    REQUIRE(grant->workers.size() == ask.request.workers);
    clients_[grant->lease] = {*grant, ask.request.cores, {}};
  }

  Client* some_client() {
    if (clients_.empty()) return nullptr;
    return &std::next(clients_.begin(), below(static_cast<std::uint32_t>(clients_.size())))->second;
  }

  /// A client reaches a worker that it was granted; the worker asks its agent, which knows what has ended.
  void connect() {
    Client* client = some_client();
    if (client == nullptr || client->grant.workers.empty() || client->grant.expiry_ms <= lease::to_ms(now_))
      return;
    const auto& granted =
        client->grant.workers[below(static_cast<std::uint32_t>(client->grant.workers.size()))];
    for (Agent& agent : agents_) {
      if (agent.id != granted.node || ended_at_[agent.id].contains(client->grant.lease)) continue;
      const auto process = agent.processes.find(granted.worker);
      if (process == agent.processes.end() || process->second.lease != 0) continue;
      process->second = {client->grant.lease, client->cores};
      INFO("a client was let in beyond the node's cores");
      REQUIRE(agent.cores_used() <= agent.cores);
      refill(agent);
    }
  }

  void finish() {
    Client* client = some_client();
    if (client == nullptr) return;
    const std::uint64_t id = client->grant.lease;
    if (below(2) == 0) end_connections(id);
    const char* reason = below(2) == 0 ? "released" : "revoked";
    const Result<api::LeaseInfo> ended = table_.end(id, reason, now_);
    if (ended) REQUIRE(ended->state == "ended");
    clients_.erase(id);
  }

  void end_connections(std::uint64_t lease) {
    for (Agent& agent : agents_) {
      std::erase_if(agent.processes, [&](const auto& entry) { return entry.second.lease == lease; });
      refill(agent);
    }
  }

  void die(Agent& agent) {
    if (agent.processes.empty()) return;
    agent.processes.erase(
        std::next(agent.processes.begin(), below(static_cast<std::uint32_t>(agent.processes.size()))));
    refill(agent);
  }

  void renew() {
    Client* client = some_client();
    if (client == nullptr) return;
    const Result<api::LeaseGrant> renewed = table_.renew(client->grant.lease, 1000 + below(5000), now_);
    if (renewed) {
      REQUIRE(renewed->expiry_ms >= client->grant.expiry_ms);
      client->grant = *renewed;
    } else if (renewed.error().code() == Errc::lease_expired) {
      clients_.erase(client->grant.lease);
    }
  }

  void replace() {
    Client* client = some_client();
    if (client == nullptr || client->grant.workers.empty()) return;
    api::GrantedWorker& lost =
        client->grant.workers[below(static_cast<std::uint32_t>(client->grant.workers.size()))];
    const Result<api::LeaseGrant> grant = table_.replace(client->grant.lease, lost.node, lost.worker, now_);
    if (grant) {
      REQUIRE(grant->workers.size() == 1);
      lost = grant->workers[0];
    }
  }

  void upset(Agent& agent) {
    switch (below(4)) {
      case 0:
        agent.silent = true;
        break;
      case 1:
        agent.silent = false;
        break;
      case 2:
        agent.processes.clear();
        start(agent);
        break;
      default:
        static_cast<void>(table_.set_draining(agent.id, below(3) == 0, now_));
        break;
    }
  }

  void check() {
    for (const auto& [id, node] : table_.state()) {
      std::uint32_t held = 0;
      std::uint64_t memory = 0;
      for (const auto& [worker_id, worker] : node.workers) {
        held += worker.cores;
        memory += worker.memory_bytes;
        if (worker.state == lease::Worker::State::ready) REQUIRE((worker.lease == 0 && worker.cores == 0));
      }
      REQUIRE(held == node.held.cores);
      REQUIRE(memory == node.held.memory_bytes);
      REQUIRE(held <= node.about.cores);
      if (node.lost) REQUIRE(node.workers.empty());
    }
    std::set<std::pair<std::uint64_t, std::uint32_t>> leased;
    std::uint64_t ended = 0;
    for (const api::LeaseInfo& info : table_.leases().leases) {
      if (info.state == "ended") {
        ++ended;
        REQUIRE_FALSE(info.reason.empty());
        REQUIRE(endings_.try_emplace(info.lease, info.reason).first->second == info.reason);
        continue;
      }
      REQUIRE(info.reason.empty());
      REQUIRE_FALSE(endings_.contains(info.lease));
      for (const api::GrantedWorker& worker : info.workers) {
        INFO("worker " << worker.worker << " of node " << worker.node << " is in two leases");
        REQUIRE(leased.emplace(worker.node, worker.worker).second);
      }
    }
    std::uint64_t counted = 0;
    for (const auto& [reason, count] : table_.counts().ended) counted += count;
    REQUIRE(counted == ended);
    REQUIRE(table_.counts().granted == ended + table_.active());
  }

  std::mt19937_64 random_;
  lease::LeaseTable table_{1};
  lease::Time now_{std::chrono::hours(1)};
  std::vector<Agent> agents_;
  std::map<std::uint64_t, Client> clients_;
  std::map<std::uint64_t, std::set<std::uint64_t>> ended_at_;  // Leases whose end each node has heard.
  std::map<std::uint64_t, std::string> endings_;
};

}  // namespace

TEST_CASE("whatever happens, no core and no worker is leased twice and a lease ends once") {
  const char* given = std::getenv("SUBLET_SIMULATION_SEED");
  const std::uint64_t base = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  const int runs = given != nullptr ? 1 : 30;
  for (int run = 0; run < runs; ++run) {
    const std::uint64_t seed = base + static_cast<std::uint64_t>(run);
    INFO("replay with SUBLET_SIMULATION_SEED=" << seed);
    Simulation simulation(seed);
    for (int step = 0; step < 600; ++step) simulation.step();
  }
  std::cout << "simulated from SUBLET_SIMULATION_SEED=" << base << "\n";
}
