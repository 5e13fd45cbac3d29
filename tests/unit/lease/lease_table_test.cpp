#include "runtime/base/limits.hpp"
#include "runtime/wire/handshake.hpp"
#include "tests/unit/lease/pool.hpp"

using namespace sublet;
using namespace std::chrono_literals;
using lease_test::Pool;

TEST_CASE("a grant signs a token for each worker that its worker accepts") {
  Pool pool;
  const auto node = pool.add("a", 4);
  pool.ready(node, {1, 2});
  lease::Ask ask = Pool::ask(2, 2);
  ask.request.memory_bytes = (100U << 20U) + 1;
  const api::LeaseGrant grant = pool.table.grant(ask, pool.now).value();
  REQUIRE(grant.workers.size() == 2);
  REQUIRE(grant.expiry_ms == lease::to_ms(pool.now) + 10'000);
  for (const api::GrantedWorker& worker : grant.workers) {
    const wire::SignedToken token = wire::parse_token(worker.token).value();
    REQUIRE(wire::verify(token, wire::worker_key(pool.key, worker.worker)));
    REQUIRE(token.token == wire::Token{.lease = grant.lease,
                                       .expiry_ms = grant.expiry_ms,
                                       .worker = worker.worker,
                                       .tenant = 1,
                                       .function = 5,
                                       .cores = 2,
                                       .memory_16mib = 7});
  }
  REQUIRE(pool.node(node).cores_leased == 4);
  REQUIRE(pool.node(node).workers_ready == 0);
}

TEST_CASE("listings carry no token") {
  Pool pool;
  pool.ready(pool.add("a", 4), {1});
  const auto id = pool.grant(1).value().lease;
  REQUIRE(pool.table.lease(id)->workers.at(0).token.empty());
  REQUIRE(pool.table.end(id, "released", pool.now)->workers.at(0).token.empty());
  REQUIRE(pool.table.leases().leases.at(0).workers.at(0).token.empty());
}

TEST_CASE("a refusal says what is missing, and takes nothing") {
  Pool pool;
  const auto a = pool.add("a", 2);
  const auto b = pool.add("b", 1);
  pool.ready(a, {1, 2, 3});
  pool.ready(b, {1});
  const Result<api::LeaseGrant> grant = pool.grant(4, 2);
  REQUIRE(grant.error().code() == Errc::no_capacity);
  REQUIRE_THAT(
      pool.table.shortage(Pool::ask(4, 2), pool.now).text,
      Catch::Contains(
          "asked for 4 workers of 2 cores; room for 1 now; 2 nodes up, 0 not admitting, 4 workers ready") &&
          Catch::Contains("most free on one node: 2 cores"));
  REQUIRE(pool.node(a).cores_leased == 0);
  REQUIRE(pool.grant(3).ok());
}

TEST_CASE("placement prefers the function, then the freest node, and never another function") {
  Pool pool;
  const auto small = pool.add("small", 2);
  const auto large = pool.add("large", 8);
  const auto other = pool.add("other", 16);
  REQUIRE(pool.table.heartbeat(small, {.ready = {Pool::worker(1, 5), Pool::worker(2)}}, pool.now).ok());
  pool.ready(large, {1, 2, 3});
  REQUIRE(pool.table.heartbeat(other, {.ready = {Pool::worker(1, 6)}}, pool.now).ok());
  const api::LeaseGrant grant = pool.grant(5).value();
  REQUIRE(grant.workers[0].node == small);
  REQUIRE(grant.workers[0].worker == 1);
  REQUIRE(grant.workers[1].node == large);
  REQUIRE(grant.workers[2].node == large);
  REQUIRE(grant.workers[3].node == large);
  REQUIRE(grant.workers[4].node == small);
  REQUIRE(pool.grant(1).error().code() == Errc::no_capacity);
}

TEST_CASE("memory and transports bound a placement") {
  Pool pool;
  const auto node = pool.add("a", 4, 4ULL << 30);
  pool.ready(node, {1, 2, 3, 4});
  lease::Ask ask = Pool::ask(2);
  ask.request.memory_bytes = 3ULL << 30;
  REQUIRE(pool.table.grant(ask, pool.now).error().code() == Errc::no_capacity);
  ask.request.workers = 1;
  REQUIRE(pool.table.grant(ask, pool.now).ok());
  REQUIRE(pool.node(node).memory_leased == 3ULL << 30);
  REQUIRE(pool.grant(1).ok());
  REQUIRE(pool.grant(1).error().code() == Errc::no_capacity);

  const auto fresh = pool.add("b", 4);
  pool.ready(fresh, {1});
  lease::Ask verbs = Pool::ask(1);
  verbs.request.transports.require = {"verbs"};
  REQUIRE(pool.table.grant(verbs, pool.now).error().code() == Errc::no_capacity);
  REQUIRE_THAT(
      pool.table.shortage(verbs, pool.now).text,
      Catch::Contains("reached over verbs") && Catch::Contains("no worker offers verbs; 5 offer tcp: allow"));
  verbs.request.transports.require = {"verbs", "tcp"};
  REQUIRE(pool.table.grant(verbs, pool.now).ok());
}

TEST_CASE("a granted worker stays granted though a late heartbeat says ready") {
  Pool pool;
  const auto node = pool.add("a", 4);
  pool.ready(node, {1});
  REQUIRE(pool.grant(1).ok());
  pool.ready(node, {1});
  pool.ready(node, {1});
  REQUIRE(pool.grant(1).error().code() == Errc::no_capacity);
}

TEST_CASE("a lease ends once, with its first reason, and tells each node once") {
  Pool pool;
  const auto a = pool.add("a", 2);
  const auto b = pool.add("b", 2);
  pool.ready(a, {1, 2});
  pool.ready(b, {1, 2});
  const auto id = pool.grant(4).value().lease;
  REQUIRE(pool.table.uses_function(5));
  REQUIRE(pool.table.end(id, "released", pool.now)->reason == "released");
  REQUIRE(pool.table.end(id, "revoked", pool.now)->reason == "released");
  pool.pass(20s);
  REQUIRE(pool.table.lease(id)->reason == "released");
  REQUIRE_FALSE(pool.table.uses_function(5));
  REQUIRE(pool.table.counts().ended == std::map<std::string, std::uint64_t>{{"released", 1}});
  REQUIRE(pool.table.renew(id, 1000, pool.now).error().code() == Errc::closed);
}

TEST_CASE("cores come back only when the node says so") {
  Pool pool;
  const auto node = pool.add("a", 2);
  pool.ready(node, {1, 2, 3, 4});
  const auto id = pool.grant(2).value().lease;
  pool.hear(node, {3, 4}, {{1, id}, {2, id}});
  REQUIRE(pool.node(node).workers_serving == 2);
  REQUIRE(pool.table.end(id, "revoked", pool.now).ok());
  const auto commands = pool.commands(node);
  REQUIRE(commands.size() == 1);
  REQUIRE(commands[0].kind == "end_lease");
  REQUIRE(commands[0].lease == id);
  REQUIRE(commands[0].reason == "revoked");
  REQUIRE(pool.grant(1).error().code() == Errc::no_capacity);
  pool.hear(node, {3, 4}, {{2, id}});
  REQUIRE(pool.node(node).cores_leased == 1);
  REQUIRE(pool.grant(1).ok());
  REQUIRE(pool.grant(1).error().code() == Errc::no_capacity);
}

TEST_CASE("an unused worker returns after the node took the command and was heard twice since") {
  Pool pool;
  const auto node = pool.add("a", 1);
  pool.ready(node, {1});
  const auto id = pool.grant(1).value().lease;
  REQUIRE(pool.table.end(id, "released", pool.now).ok());
  pool.ready(node, {1});
  pool.ready(node, {1});
  REQUIRE(pool.grant(1).error().code() == Errc::no_capacity);  // It may not know yet.
  const auto commands = pool.commands(node);
  REQUIRE(commands.size() == 1);
  REQUIRE(pool.commands(node, commands[0].sequence).empty());
  pool.ready(node, {1});
  REQUIRE(pool.grant(1).error().code() == Errc::no_capacity);  // Perhaps written before it knew.
  static_cast<void>(pool.table.take_changes());
  pool.ready(node, {1});
  REQUIRE(pool.table.take_changes().capacity);
  REQUIRE(pool.grant(1).ok());
}

TEST_CASE("renewal moves the expiry and signs anew, and time ends the lease") {
  Pool pool;
  const auto node = pool.add("a", 2);
  pool.ready(node, {1, 2});
  const api::LeaseGrant grant = pool.grant(1).value();
  const auto keep = [&](std::chrono::milliseconds time) {
    pool.now += time;
    pool.hear(node, {1, 2}, {});
    pool.table.tick(pool.now);
  };
  keep(9s);
  const api::LeaseGrant renewed = pool.table.renew(grant.lease, 10'000, pool.now).value();
  REQUIRE(renewed.expiry_ms == lease::to_ms(pool.now) + 10'000);
  REQUIRE(wire::parse_token(renewed.workers.at(0).token)->token.expiry_ms == renewed.expiry_ms);
  REQUIRE(pool.table.renew(grant.lease, 1, pool.now)->expiry_ms == renewed.expiry_ms);  // Never earlier.
  keep(9s);
  REQUIRE(pool.table.lease(grant.lease)->state == "active");
  pool.now += 1s;
  REQUIRE(pool.table.renew(grant.lease, 10'000, pool.now).error().code() == Errc::lease_expired);
  REQUIRE(pool.table.lease(grant.lease)->reason == "expired");
  REQUIRE(pool.table.renew(4711, 1000, pool.now).error().code() == Errc::not_found);
  REQUIRE(pool.table.renew(grant.lease, 0, pool.now).error().code() == Errc::invalid_argument);
}

TEST_CASE("a revoked lease says so to its client") {
  Pool pool;
  pool.ready(pool.add("a", 2), {1});
  const auto id = pool.grant(1).value().lease;
  REQUIRE(pool.table.end(id, "revoked", pool.now).ok());
  REQUIRE(pool.table.renew(id, 1000, pool.now).error().code() == Errc::lease_revoked);
  REQUIRE(pool.table.replace(id, 1, 1, pool.now).error().code() == Errc::lease_revoked);
}

TEST_CASE("a worker that is gone is replaced under its lease") {
  Pool pool;
  const auto node = pool.add("a", 2);
  pool.ready(node, {1, 2});
  const auto id = pool.grant(2).value().lease;
  pool.hear(node, {}, {{1, id}, {2, id}});
  pool.hear(node, {3}, {{2, id}});  // Worker 1 has died; 3 is its successor.
  REQUIRE(pool.table.lease(id)->workers.size() == 1);
  REQUIRE(pool.node(node).cores_leased == 1);
  const api::LeaseGrant grant = pool.table.replace(id, node, 1, pool.now).value();
  REQUIRE(grant.lease == id);
  REQUIRE(grant.workers.size() == 1);
  REQUIRE(grant.workers[0].worker == 3);
  REQUIRE(pool.commands(node).empty());
  REQUIRE(pool.table.replace(id, node, 1, pool.now)->workers.at(0).worker == 3);  // Its answer was lost.
  REQUIRE(pool.table.replace(id, node, 7, pool.now).error().code() == Errc::not_found);
  REQUIRE(pool.table.renew(id, 1000, pool.now)->workers.size() == 2);
}

TEST_CASE("a worker that its client calls lost is ended, and keeps its cores until it is") {
  Pool pool;
  const auto node = pool.add("a", 1);
  pool.ready(node, {1, 2});
  const auto id = pool.grant(1).value().lease;
  pool.hear(node, {2}, {{1, id}});
  REQUIRE(pool.table.replace(id, node, 1, pool.now).error().code() == Errc::no_capacity);
  const auto commands = pool.commands(node);
  REQUIRE(commands.size() == 1);
  REQUIRE(commands[0].kind == "end_worker");
  REQUIRE(commands[0].worker == 1);
  REQUIRE(commands[0].lease == id);
  pool.hear(node, {2}, {{1, id}});
  REQUIRE(pool.table.replace(id, node, 1, pool.now).error().code() == Errc::no_capacity);
  REQUIRE(pool.commands(node).size() == 1);
  pool.hear(node, {2}, {});
  REQUIRE(pool.table.replace(id, node, 1, pool.now)->workers.at(0).worker == 2);
}

TEST_CASE("a worker that a lease has lost never takes another place in it") {
  Pool pool;
  const auto node = pool.add("a", 3);
  pool.ready(node, {1, 2});
  const auto id = pool.grant(2).value().lease;
  pool.ready(node, {2, 3});  // Written when there was no worker 1 yet, and late.
  pool.ready(node, {1, 2, 3});
  REQUIRE(pool.table.replace(id, node, 1, pool.now)->workers.at(0).worker == 3);
  pool.ready(node, {1, 3});
  REQUIRE(pool.table.replace(id, node, 2, pool.now).error().code() == Errc::no_capacity);
  pool.ready(node, {1, 3, 4});
  REQUIRE(pool.table.replace(id, node, 2, pool.now)->workers.at(0).worker == 4);
  REQUIRE(pool.table.replace(id, node, 1, pool.now)->workers.at(0).worker == 3);  // Its answer was lost.
  REQUIRE(pool.table.lease(id)->workers.size() == 2);
}

TEST_CASE("a silent node is lost, and its lease stays for replacements until it expires") {
  Pool pool;
  const auto lost = pool.add("lost", 1);
  pool.ready(lost, {1});
  const auto first = pool.grant(1).value().lease;
  const auto second_node = pool.add("kept", 1);
  pool.ready(second_node, {1});
  const auto keep = [&] { pool.ready(second_node, {1}); };
  pool.pass(limits::node_silent_max);
  REQUIRE(pool.node(lost).state == "up");
  keep();
  pool.pass(1ms);
  REQUIRE(pool.node(lost).state == "lost");
  REQUIRE(pool.table.heartbeat(lost, {}, pool.now).error().code() == Errc::not_found);
  REQUIRE(pool.table.commands_after(lost, 0).error().code() == Errc::not_found);
  REQUIRE(pool.table.lease(first)->state == "active");
  REQUIRE(pool.table.lease(first)->workers.empty());
  REQUIRE(pool.table.replace(first, lost, 1, pool.now)->workers.at(0).node == second_node);
  REQUIRE(pool.table.counts().nodes_lost == 1);
}

TEST_CASE("a lease that time ends after its nodes were lost says node_lost") {
  Pool pool;
  pool.ready(pool.add("a", 1), {1});
  const auto id = pool.grant(1).value().lease;
  pool.pass(11s);  // The lease's end comes first in a tick, so let the node be lost before.
  REQUIRE(pool.table.lease(id)->reason == "expired");
  pool.ready(pool.add("b", 1), {1});
  const auto next = pool.grant(1).value().lease;
  pool.pass(6s);
  pool.pass(6s);
  REQUIRE(pool.table.lease(next)->reason == "node_lost");
}

TEST_CASE("nobody is lost for the manager's own absence") {
  Pool pool;
  const auto node = pool.add("a", 1);
  pool.now += 1min;
  pool.table.forgive_silence(pool.now);
  pool.table.tick(pool.now);
  REQUIRE(pool.node(node).state == "up");
}

TEST_CASE("a node that registers again loses what it had before") {
  Pool pool;
  const auto old = pool.add("a", 1);
  pool.ready(old, {1});
  const auto id = pool.grant(1).value().lease;
  const auto again = pool.add("a", 1);
  REQUIRE(again != old);
  REQUIRE(pool.table.nodes(pool.now).nodes.size() == 1);
  REQUIRE(pool.table.lease(id)->workers.empty());
  REQUIRE(pool.table.heartbeat(old, {}, pool.now).error().code() == Errc::not_found);
}

TEST_CASE("a lease that nobody knows is ended at its node, once") {
  Pool pool;
  const auto node = pool.add("a", 2);
  pool.hear(node, {}, {{9, 77}});
  pool.hear(node, {}, {{9, 77}});
  const auto commands = pool.commands(node);
  REQUIRE(commands.size() == 1);
  REQUIRE(commands[0].kind == "end_lease");
  REQUIRE(commands[0].lease == 77);
  REQUIRE(commands[0].reason == "unknown");
  pool.hear(node, {1}, {{9, 77}});
  REQUIRE(pool.grant(1).error().code() == Errc::no_capacity);  // Nobody knows which cores worker 9 has.
  pool.hear(node, {1}, {});
  REQUIRE(pool.node(node).workers_ready == 1);
  REQUIRE(pool.grant(1).ok());
}

TEST_CASE("a worker that serves another lease than granted leaves the granted one") {
  Pool pool;
  const auto node = pool.add("a", 2);
  pool.ready(node, {1, 2});
  const auto id = pool.grant(2).value().lease;
  pool.hear(node, {2}, {{1, 77}});
  REQUIRE(pool.table.lease(id)->workers.size() == 1);
  REQUIRE(pool.commands(node).at(0).kind == "end_lease");
}

TEST_CASE("a stray worker of an active lease is ended alone") {
  Pool pool;
  const auto node = pool.add("a", 2);
  pool.ready(node, {1});
  const auto id = pool.grant(1).value().lease;
  pool.hear(node, {}, {{1, id}, {8, id}});
  REQUIRE(pool.commands(node).at(0).kind == "end_worker");
  REQUIRE(pool.commands(node).at(0).worker == 8);
  REQUIRE(pool.table.lease(id)->workers.size() == 1);
}

TEST_CASE("a draining node gets no lease, by order or by its own word, and may come back") {
  Pool pool;
  const auto node = pool.add("a", 4);
  pool.ready(node, {1, 2});
  const auto kept = pool.grant(1).value().lease;
  REQUIRE(pool.table.set_draining(node, true, pool.now)->state == "draining");
  REQUIRE(pool.grant(1).error().code() == Errc::no_capacity);
  REQUIRE(pool.table.lease(kept)->state == "active");
  REQUIRE(pool.table.set_draining(node, false, pool.now)->state == "up");
  const auto commands = pool.commands(node);
  REQUIRE(commands.size() == 2);
  REQUIRE(commands[0].kind == "drain");
  REQUIRE(commands[1].kind == "undrain");
  REQUIRE(
      pool.table.heartbeat(node, {.ready = {Pool::worker(1), Pool::worker(2)}, .draining = true}, pool.now)
          .ok());
  REQUIRE(pool.grant(1).error().code() == Errc::no_capacity);
  pool.ready(node, {1, 2});
  REQUIRE(pool.grant(1).ok());
}

TEST_CASE("a node says what it lends, and is granted that much") {
  Pool pool;
  const auto node = pool.add("a", 4);
  pool.ready(node, {1, 2, 3, 4});
  const auto kept = pool.grant(1).value().lease;
  const auto lends = [&](std::uint32_t cores, std::uint64_t memory_bytes) {
    api::Heartbeat said{.ready = {Pool::worker(1), Pool::worker(2), Pool::worker(3), Pool::worker(4)},
                        .cores = cores,
                        .memory_bytes = memory_bytes};
    return pool.table.heartbeat(node, said, pool.now);
  };
  REQUIRE(lends(1, 4ULL << 30).ok());
  REQUIRE(pool.node(node).cores == 1);
  REQUIRE(pool.node(node).memory_bytes == 4ULL << 30);
  REQUIRE(pool.grant(1).error().code() == Errc::no_capacity);
  REQUIRE(lends(0, 0).ok());
  REQUIRE(pool.node(node).cores == 1);
  static_cast<void>(pool.table.take_changes());
  REQUIRE(lends(2, 8ULL << 30).ok());
  REQUIRE(pool.table.take_changes().capacity);
  REQUIRE(pool.grant(1).ok());
  REQUIRE(pool.table.end(kept, "released", pool.now).ok());
  REQUIRE(lends(1, 0).error().code() == Errc::invalid_argument);
  REQUIRE(lends(0, 1).error().code() == Errc::invalid_argument);
  REQUIRE(lends(65'536, 1).error().code() == Errc::invalid_argument);
}

TEST_CASE("a node that leaves is not listed any more") {
  Pool pool;
  const auto node = pool.add("a", 1);
  pool.ready(node, {1});
  const auto id = pool.grant(1).value().lease;
  REQUIRE(pool.table.remove_node(node, pool.now).ok());
  REQUIRE(pool.table.nodes(pool.now).nodes.empty());
  REQUIRE(pool.table.remove_node(node, pool.now).error().code() == Errc::not_found);
  REQUIRE(pool.table.lease(id)->workers.empty());
  REQUIRE(pool.table.counts().nodes_lost == 0);
}

TEST_CASE("commands are numbered, kept until taken, and only what was sent can be taken") {
  Pool pool;
  const auto node = pool.add("a", 1);
  pool.table.announce_function("fetch_function", 3);
  pool.table.announce_function("drop_function", 3);
  REQUIRE(pool.table.take_changes().commands.contains(node));
  REQUIRE(pool.commands(node).size() == 2);
  REQUIRE(pool.commands(node).at(0).sequence == 1);
  REQUIRE(pool.commands(node, 1).at(0).kind == "drop_function");
  REQUIRE(pool.commands(node, 0).size() == 1);
  REQUIRE(pool.table.commands_after(node, 3).error().code() == Errc::invalid_argument);
}

TEST_CASE("what peers say is bounded") {
  Pool pool;
  const auto node = pool.add("a", 1);
  const auto registering = [&](api::NodeRegistration about) {
    return pool.table.register_node(about, pool.key, pool.now).error().code();
  };
  REQUIRE(registering({"", "m", 1, 1, 1, "1"}) == Errc::invalid_argument);
  REQUIRE(registering({"a\n", "m", 1, 1, 1, "1"}) == Errc::invalid_argument);
  REQUIRE(registering({"b", "m", 0, 1, 1, "1"}) == Errc::invalid_argument);
  REQUIRE(registering({"b", "m", 65'536, 1, 1, "1"}) == Errc::invalid_argument);
  REQUIRE(registering({std::string(65, 'b'), "m", 1, 1, 1, "1"}) == Errc::invalid_argument);

  const auto saying = [&](const api::Heartbeat& said) {
    return pool.table.heartbeat(node, said, pool.now).error().code();
  };
  REQUIRE(saying({.ready = {Pool::worker(1), Pool::worker(1)}}) == Errc::invalid_argument);
  REQUIRE(saying({.ready = {Pool::worker(1)}, .serving = {{1, 5}}}) == Errc::invalid_argument);
  REQUIRE(saying({.serving = {{1, 0}}}) == Errc::invalid_argument);
  REQUIRE(saying({.ready = {{1, {}, 0}}}) == Errc::invalid_argument);
  REQUIRE(saying({.ready = std::vector<api::WorkerInfo>(limits::node_workers_max + 1)}) ==
          Errc::invalid_argument);

  const auto asking = [&](auto change) {
    lease::Ask ask = Pool::ask(1);
    change(ask.request);
    return pool.table.grant(ask, pool.now).error().code();
  };
  REQUIRE(asking([](auto& request) { request.workers = 0; }) == Errc::invalid_argument);
  REQUIRE(asking([](auto& request) { request.workers = 4097; }) == Errc::invalid_argument);
  REQUIRE(asking([](auto& request) { request.cores = 0; }) == Errc::invalid_argument);
  REQUIRE(asking([](auto& request) { request.cores = 70'000; }) == Errc::invalid_argument);
  REQUIRE(asking([](auto& request) { request.ttl_ms = 0; }) == Errc::invalid_argument);
  REQUIRE(asking([](auto& request) { request.ttl_ms = UINT64_MAX; }) == Errc::invalid_argument);
  REQUIRE(asking([](auto& request) { request.memory_bytes = UINT64_MAX; }) == Errc::invalid_argument);
  REQUIRE(asking([](auto& request) { request.tenant = "a b"; }) == Errc::invalid_argument);
  REQUIRE(asking([](auto&) {}) == Errc::no_capacity);
}

TEST_CASE("tenants are numbered by first use") {
  Pool pool;
  pool.ready(pool.add("a", 4), {1, 2, 3});
  const auto tenant_of = [&](const char* name) {
    lease::Ask ask = Pool::ask(1);
    ask.request.tenant = name;
    return wire::parse_token(pool.table.grant(ask, pool.now)->workers.at(0).token)->token.tenant;
  };
  REQUIRE(tenant_of("physics") == 1);
  REQUIRE(tenant_of("biology") == 2);
  REQUIRE(tenant_of("physics") == 1);
}

TEST_CASE("ended leases are kept for listing in a bounded ring") {
  Pool pool;
  const auto node = pool.add("a", 1);
  std::uint64_t first = 0;
  for (std::uint32_t i = 1; i <= limits::leases_ended_max + 1; ++i) {
    pool.ready(node, {i});
    const auto id = pool.grant(1).value().lease;
    if (first == 0) first = id;
    REQUIRE(pool.table.end(id, "released", pool.now).ok());
    const auto newest = pool.table.state().at(node).sequence;
    REQUIRE(pool.table.commands_after(node, newest).ok());
  }
  REQUIRE(pool.table.lease(first).error().code() == Errc::not_found);
  REQUIRE(pool.table.leases({.limit = 2 * limits::leases_ended_max}).leases.size() ==
          limits::leases_ended_max);
}

TEST_CASE("a node that does not take its commands is lost") {
  Pool pool;
  const auto node = pool.add("a", 1);
  for (std::size_t i = 0; i <= limits::node_commands_max; ++i)
    pool.table.announce_function("fetch_function", 1);
  REQUIRE(pool.table.heartbeat(node, {}, pool.now).error().code() == Errc::not_found);
  REQUIRE(pool.node(node).state == "lost");
}
