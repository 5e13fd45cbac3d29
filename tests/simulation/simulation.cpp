#include "tests/simulation/simulation.hpp"

#include <algorithm>
#include <iterator>

#include "runtime/base/limits.hpp"
#include "runtime/wire/handshake.hpp"

namespace sublet::simulation {
namespace {

using std::chrono::milliseconds;

constexpr std::uint32_t nodes = 4;
constexpr std::uint32_t quota_cores = 5;
constexpr std::size_t under_way_max = 64;
constexpr std::uint32_t old_tokens_max = 16;

lease::Policy policy() {
  lease::Policy policy;
  policy.tenants["bounded"] = {.share = 2, .cores_max = quota_cores, .leases_max = 3};
  return policy;
}

std::uint64_t token_end(const api::GrantedWorker& worker) {
  return wire::parse_token(worker.token).value().token.expiry_ms;
}

std::string text(std::uint64_t number) {
  return std::to_string(number);
}

}  // namespace

Simulation::Simulation(std::uint64_t seed, Fault fault, std::function<void(const std::string&)> trace)
    : random_(seed), trace_(std::move(trace)), reorders_(below(4) == 0), manager_(fault, policy()) {
  for (std::uint32_t i = 0; i < nodes; ++i) {
    agents_.emplace_back(Node(fault, std::string(1, static_cast<char>('a' + i)), 2 + below(3)));
  }
}

void Simulation::run(int steps) {
  for (int i = 0; i < steps; ++i) {
    step();
    check_step();
    if (i % 16 == 0) check_table();
  }
  come_to_rest();
}

void Simulation::step() {
  pass_time();
  Agent& agent = agents_[below(nodes)];
  const std::uint32_t choice = below(64);
  if (choice < 9) return report(agent);
  if (choice < 15) return poll_commands(agent);
  if (choice < 31) return deliver();
  if (choice < 36) return manager_.write(steady_);
  if (choice < 43) return acquire();
  if (choice < 50) return connect();
  if (choice < 52) return renew();
  if (choice < 56) return one_in(4) ? replace() : release();
  if (choice < 58) return manager_.table().tick(time());
  if (choice < 59) return one_in(2) ? upset(agent) : agent.node.kill_worker(below(64));
  if (choice < 60) return one_in(2) ? order(agent) : want_back(agent);
  if (choice < 61) return give_up(agent);
  if (choice < 63) return one_in(2) ? lose() : agent.node.kill_worker(below(64));
  if (one_in(4)) restart_manager();
}

void Simulation::pass_time() {
  steady_ += one_in(300) ? milliseconds(below(8000)) : milliseconds(below(40));
  for (Agent& agent : agents_) agent.node.pass(now_ms());
}

/// A request that waits in its socket may arrive after a later one, and twice.
void Simulation::send(Request request, bool again) {
  if (requests_.size() >= under_way_max) {
    if (request.fail) request.fail();
    return;
  }
  if (again && one_in(20)) requests_.push_back(request);
  requests_.push_back(std::move(request));
}

void Simulation::reply(std::function<void()> answer) {
  if (one_in(30) || answers_.size() >= under_way_max) return tell("an answer is lost");
  answers_.push_back(std::move(answer));
}

void Simulation::deliver() {
  for (std::uint32_t some = 1 + below(4); some > 0; --some) {
    const std::size_t all = requests_.size() + answers_.size();
    if (all == 0) return;
    const std::size_t choice = below(static_cast<std::uint32_t>(all));
    if (choice < answers_.size()) {
      const auto answer = answers_[choice];
      answers_.erase(answers_.begin() + static_cast<std::ptrdiff_t>(choice));
      answer();
      continue;
    }
    const auto at = requests_.begin() + static_cast<std::ptrdiff_t>(choice - answers_.size());
    const Request request = *at;
    requests_.erase(at);
    request.arrive();
  }
}

void Simulation::lose() {
  if (requests_.empty()) return;
  const auto at = requests_.begin() + below(static_cast<std::uint32_t>(requests_.size()));
  const Request request = *at;
  requests_.erase(at);
  if (request.fail) request.fail();
}

void Simulation::restart_manager() {
  tell("the manager is killed and comes back");
  for (const Request& request : std::exchange(requests_, {})) {
    if (request.fail) request.fail();
  }
  for (Agent& agent : agents_) give_up(agent);
  steady_ += milliseconds(below(3000));
  for (Agent& agent : agents_) agent.node.pass(now_ms());
  // The wall clock was set by up to two hours, and nobody may notice.
  ends_ms_.clear();  // The owner repeats himself; here, he has changed his mind.
  manager_.restart(steady_, time() + std::chrono::minutes(below(240)) - std::chrono::minutes(120));
  require(lease::to_ms(time()) == now_ms(), "a jump of the wall clock moves the time of leases");
  for (const auto& [id, client] : clients_) {
    require(manager_.table().lease(id).ok(), "a lease that was promised is forgotten by a restart");
  }
}

// --- Nodes.

void Simulation::report(Agent& agent) {
  if (agent.node.silent || agent.registering || agent.heartbeat != 0) return;
  return agent.node.id == 0 ? send_registration(agent) : send_heartbeat(agent);
}

void Simulation::send_registration(Agent& agent) {
  agent.registering = true;
  send({[this, &agent] {
          const auto id = manager_.table().register_node(agent.node.about(), SecretKey{}, time());
          if (!id) throw Violation("a node is refused");
          tell("node " + agent.node.name() + " is registered as " + text(*id));
          manager_.promise([this, &agent, id = *id] {
            reply([&agent, id] {
              if (agent.registering) agent.node.registered(id);
              agent.registering = false;
            });
          });
        },
        [&agent] { agent.registering = false; }},
       false);
}

void Simulation::send_heartbeat(Agent& agent) {
  agent.heartbeat = next_number_++;
  const api::Heartbeat said = agent.node.heartbeat();
  send({[this, &agent, said, id = agent.node.id, number = agent.heartbeat, version = agent.node.version()] {
          const Result<bool> heard = manager_.table().heartbeat(id, said, time());
          answer_heartbeat(agent, number, version, heard);
        },
        [this, &agent, number = agent.heartbeat] {
          if (agent.heartbeat == number) give_up(agent);
        },
        true},
       reorders_);
}

void Simulation::answer_heartbeat(Agent& agent, std::uint64_t number, std::uint64_t version,
                                  const Result<bool>& heard) {
  const bool known = heard.ok();
  const bool resend = known && *heard;
  reply([this, &agent, number, version, known, resend] {
    if (agent.heartbeat != number) return;
    agent.heartbeat = 0;
    if (known) return agent.node.heard(resend, version);
    tell("node " + agent.node.name() + " is known no more");
    agent.node.id = 0;
    agent.node.unheard();
  });
}

/// A node's requests take too long: it closes their connections and asks anew.
void Simulation::give_up(Agent& agent) {
  if (!reorders_) {
    // What a closed connection still carries is not read after what a new one brings.
    std::erase_if(requests_, [&](const Request& request) { return request.heartbeat; });
    for (Agent& other : agents_) {
      if (other.heartbeat == 0) continue;
      other.heartbeat = 0;
      other.node.unheard();
    }
  }
  agent.heartbeat = 0;
  agent.poll = 0;
  agent.registering = false;
  agent.node.unheard();
}

void Simulation::poll_commands(Agent& agent) {
  if (agent.node.silent || agent.node.id == 0 || agent.poll != 0) return;
  agent.poll = next_number_++;
  send({[this, &agent, id = agent.node.id, after = agent.node.taken, number = agent.poll] {
          auto commands = manager_.commands_after(id, after);
          if (!commands) {
            if (agent.poll == number) agent.poll = 0;
            return;
          }
          reply([&agent, id, number, list = *std::move(commands)] {
            if (agent.poll != number || agent.node.id != id) return;
            agent.poll = 0;
            for (const api::Command& command : list.commands) {
              require(command.sequence > agent.node.taken, "commands come twice or out of order");
              agent.node.obey(command);
            }
          });
        },
        [&agent, number = agent.poll] {
          if (agent.poll == number) agent.poll = 0;
        }});
}

void Simulation::upset(Agent& agent) {
  switch (below(5)) {
    case 0:
      agent.node.silent = true;
      return;
    case 1:
    case 2:
      agent.node.silent = false;
      return;
    case 3:
      tell("node " + agent.node.name() + " dies and comes back");
      give_up(agent);
      return agent.node.crash();
    default:
      return agent.node.set_draining(one_in(3));
  }
}

// --- Clients and operators.

/// Both leave verbs alone.
api::Transports Simulation::some_wishes() {
  if (one_in(2)) return {.require = {"verbs"}};
  return {.forbid = {"tcp"}};
}

void Simulation::check_transports(const api::LeaseGrant& grant, const api::Transports& wishes) {
  for (const api::GrantedWorker& worker : grant.workers) {
    const bool any = wishes.require.empty() && wishes.forbid.empty();
    require(any || worker.endpoints.contains("verbs"), "a worker is granted that its lease cannot reach");
  }
}

void Simulation::acquire() {
  lease::Ask ask{1, "f@1", {}};
  ask.request.tenant = one_in(2) ? "bounded" : "free";
  ask.request.workers = 1 + below(3);
  ask.request.cores = 1 + below(2);
  ask.request.ttl_ms = 1'000 + below(12'000);
  ask.request.placement = one_in(2) ? "pack" : "spread";
  if (one_in(3)) ask.request.transports = some_wishes();
  send({[this, ask] {
          const auto grant = manager_.table().grant(ask, time());
          if (!grant) return require(grant.error().code() == Errc::no_capacity, "a grant is refused wrongly");
          require(grant->workers.size() == ask.request.workers, "a grant has too few workers");
          check_transports(*grant, ask.request.transports);
          check_ends(*grant);
          tell("lease " + text(grant->lease) + " is granted");
          manager_.promise([this, ask, grant = *grant] {
            require(grant.lease > highest_lease_, "the number of a lease is used twice");
            highest_lease_ = grant.lease;
            reply([this, ask, grant] { take_grant(grant, ask); });
          });
        },
        nullptr});
}

void Simulation::take_grant(const api::LeaseGrant& grant, const lease::Ask& ask) {
  Client& client = clients_[grant.lease];
  client.tenant = ask.request.tenant;
  client.wishes = ask.request.transports;
  for (const api::GrantedWorker& worker : grant.workers)
    client.tokens.push_back({worker.node, worker.worker, grant.lease, token_end(worker), ask.request.cores});
}

std::map<std::uint64_t, Simulation::Client>::iterator Simulation::some_client() {
  if (clients_.empty()) return clients_.end();
  return std::next(clients_.begin(), below(static_cast<std::uint32_t>(clients_.size())));
}

void Simulation::renew() {
  const auto client = some_client();
  if (client == clients_.end()) return;
  send({[this, id = client->first, ttl = 1'000 + below(12'000)] {
          const auto grant = manager_.table().renew(id, ttl, time());
          if (!grant) return check_refusal(id, grant.error());
          check_ends(*grant);
          manager_.promise([this, grant = *grant] { reply([this, grant] { take_renewal(grant); }); });
        },
        nullptr});
}

/// An old answer may come after a newer one: a later expiry stays.
void Simulation::take_renewal(const api::LeaseGrant& grant) {
  const auto client = clients_.find(grant.lease);
  if (client == clients_.end()) return;
  for (const api::GrantedWorker& worker : grant.workers) {
    for (Token& token : client->second.tokens) {
      if (token.node != worker.node || token.worker != worker.worker) continue;
      token.expiry_ms = std::max(token.expiry_ms, token_end(worker));
      for (Agent& agent : agents_) agent.node.renew(token);
    }
  }
}

void Simulation::check_refusal(std::uint64_t lease, const Error& error) {
  require(error.code() != Errc::not_found, "a lease that was promised is unknown");
  if (error.code() == Errc::no_capacity) return;
  give_up(lease);
}

void Simulation::release() {
  const auto client = some_client();
  if (client == clients_.end()) return;
  const std::uint64_t id = client->first;
  if (one_in(2)) {
    for (Agent& agent : agents_) agent.node.leave(id);
  }
  send({[this, id, reason = one_in(3) ? "revoked" : "released"] {
          const auto ended = manager_.table().end(id, reason, time());
          require(ended.ok() && ended->state == "ended", "a lease cannot be ended");
          tell("lease " + text(id) + " is " + ended->reason);
          manager_.promise([this, id] { reply([this, id] { give_up(id); }); });
        },
        nullptr});
}

void Simulation::replace() {
  const auto client = some_client();
  if (client == clients_.end()) return;
  const Token lost = client->second.tokens[below(static_cast<std::uint32_t>(client->second.tokens.size()))];
  send({[this, lost, wishes = client->second.wishes] {
          const auto grant = manager_.table().replace(lost.lease, lost.node, lost.worker, time());
          if (!grant && grant.error().code() == Errc::not_found) return;  // Replaced by an earlier request.
          if (!grant) return check_refusal(lost.lease, grant.error());
          require(grant->workers.size() == 1, "a replacement is not one worker");
          check_transports(*grant, wishes);
          check_ends(*grant);
          manager_.promise([this, lost, grant = *grant] {
            reply([this, lost, grant] {
              const auto still = clients_.find(lost.lease);
              if (still == clients_.end()) return;
              for (Token& token : still->second.tokens) {
                if (token.node != lost.node || token.worker != lost.worker) continue;
                token = {grant.workers[0].node, grant.workers[0].worker, lost.lease,
                         token_end(grant.workers[0]), lost.cores};
              }
            });
          });
        },
        nullptr});
}

/// A client reaches the workers that it was granted, or one that it should have forgotten.
void Simulation::connect() {
  if (!old_tokens_.empty() && one_in(3))
    return knock(old_tokens_[below(static_cast<std::uint32_t>(old_tokens_.size()))]);
  const auto client = some_client();
  if (client == clients_.end()) return;
  for (const Token& token : client->second.tokens) knock(token);
}

/// The worker knows only the token, its agent and the time.
void Simulation::knock(const Token& token) {
  for (Agent& agent : agents_) {
    bool cores_short = false;
    if (agent.node.admit(token, now_ms(), cores_short)) {
      tell("worker " + text(token.worker) + " of node " + agent.node.name() + " serves lease " +
           text(token.lease));
    }
    require(!cores_short || reorders_, "a core is promised twice: a node must refuse a client");
  }
}

void Simulation::give_up(std::uint64_t lease) {
  const auto client = clients_.find(lease);
  if (client == clients_.end()) return;
  tell("lease " + text(lease) + " is given up by its client");
  for (const Token& token : client->second.tokens) {
    if (old_tokens_.size() < old_tokens_max) {
      old_tokens_.push_back(token);
    } else {
      old_tokens_[below(old_tokens_max)] = token;
    }
  }
  clients_.erase(client);
}

/// The owner of the node, such as Slurm, wants it cordoned, back at a time, back now, or nothing more.
void Simulation::want_back(Agent& agent) {
  lease::SiteOrder order;
  switch (below(4)) {
    case 0:
      order = {.why = "drained", .cordon = true};
      break;
    case 1:
      order = {.why = "planned", .end = time() + milliseconds(below(10'000))};
      break;
    case 2:
      order = {.why = "taken", .cordon = true, .end = lease::Time{}};
      break;
    default:
      break;
  }
  if (!manager_.want_back(agent.node.id, order, steady_)) return;
  tell("node " + agent.node.name() + " is " + (order.why.empty() ? "free" : order.why));
  ends_ms_.erase(agent.node.id);
  if (order.end) ends_ms_[agent.node.id] = std::max(lease::to_ms(*order.end), now_ms());
}

void Simulation::order(Agent& agent) {
  const std::uint64_t id = agent.node.id;
  const bool on = one_in(4);
  const bool drain = one_in(2);
  send({[this, id, on, drain] {
          static_cast<void>(drain ? manager_.table().set_draining(id, on, time())
                                  : manager_.table().set_cordoned(id, on, time()));
        },
        nullptr});
}

}  // namespace sublet::simulation
