// What outlives the manager: rows that are written and taken up again.

#include "runtime/base/limits.hpp"
#include "tests/unit/lease/pool.hpp"

using namespace sublet;
using namespace std::chrono_literals;
using lease_test::Pool;

namespace {

/// A pool whose table can die: what it has handed out is all that its successor knows.
struct Durable : Pool {
  std::map<std::uint64_t, lease::NodeRow> nodes;
  std::map<std::string, lease::OrderRow> orders;
  std::map<std::uint64_t, lease::LeaseRow> leases;
  std::map<lease::HeldKey, lease::HeldRow> held;

  void write() {
    lease::Rows rows = table.take_rows();
    for (const auto id : rows.nodes_gone) nodes.erase(id);
    for (const lease::HeldKey& gone : rows.held_gone) held.erase(gone);
    for (auto& row : rows.nodes) nodes.insert_or_assign(row.id, row);
    for (auto& row : rows.orders) orders.insert_or_assign(row.name, row);
    for (auto& row : rows.leases) leases.insert_or_assign(row.id, row);
    for (auto& row : rows.held) held.insert_or_assign(row.key, row);
    REQUIRE_FALSE(table.dirty());
  }
  void restart() {
    write();
    lease::Saved saved;
    for (const auto& [id, row] : nodes) saved.nodes.push_back(row);
    for (const auto& [id, row] : orders) saved.orders.push_back(row);
    for (const auto& [id, row] : leases) saved.leases.push_back(row);
    for (const auto& [id, row] : held) saved.held.push_back(row);
    table = lease::LeaseTable(1);
    table.restore(saved, now, limits::restart_grace);
  }
};

}  // namespace

TEST_CASE("a restarted table goes on with its nodes, leases and what they hold") {
  Durable pool;
  const auto node = pool.add("a", 8);
  pool.ready(node, {1, 2, 3});
  lease::Ask ask = Pool::ask(2, 3);
  ask.request.tenant = "t";
  ask.request.transports.require = {"tcp"};
  const api::LeaseGrant grant = pool.table.grant(ask, pool.now).value();
  pool.pass(1s);
  pool.restart();
  REQUIRE(pool.node(node).cores_leased == 6);
  REQUIRE(pool.table.tenants().at("t").held.cores == 6);
  REQUIRE(pool.table.uses_function(5));
  REQUIRE(pool.table.lease(grant.lease)->transports.require == std::vector<std::string>{"tcp"});
  const api::LeaseGrant renewed = pool.table.renew(grant.lease, 5000, pool.now).value();
  REQUIRE(renewed.expiry_ms == grant.expiry_ms);
  REQUIRE(renewed.workers.size() == 2);
  REQUIRE(renewed.workers[0].token == grant.workers[0].token);  // The same key.
  REQUIRE(renewed.workers[0].endpoints == grant.workers[0].endpoints);
  REQUIRE(pool.table.heartbeat(node, {.unchanged = true}, pool.now).value());
  pool.hear(node, {3}, {{1, grant.lease}, {2, grant.lease}});
  REQUIRE(pool.node(node).workers_serving == 2);
  REQUIRE(pool.commands(node).empty());
  REQUIRE(pool.grant(1, 3).error().code() == Errc::no_capacity);
  REQUIRE(pool.grant(1, 2)->lease > grant.lease);
}

TEST_CASE("a lease ends by its time though the manager was away") {
  Durable pool;
  const auto node = pool.add("a", 2);
  pool.ready(node, {1, 2});
  const auto id = pool.grant(1).value().lease;
  pool.write();
  pool.now += 1min;
  pool.restart();
  pool.table.tick(pool.now);
  REQUIRE(pool.table.lease(id)->reason == "expired");
  pool.write();
  REQUIRE(pool.leases.at(id).lease_time == 10s);  // Not the minute.
  REQUIRE(pool.node(node).state == "up");         // It has time to find the manager.
  pool.pass(limits::restart_grace + limits::node_silent_max + 1ms);
  REQUIRE(pool.node(node).state == "lost");
}

TEST_CASE("what had not ended yet is told again, above every command that the node knows") {
  Durable pool;
  const auto node = pool.add("a", 3);
  pool.ready(node, {1, 2, 3});
  const auto first = pool.grant(1).value().lease;
  const auto second = pool.grant(1).value().lease;
  pool.hear(node, {3}, {{1, first}, {2, second}});
  REQUIRE(pool.table.end(first, "released", pool.now).ok());
  REQUIRE(pool.table.replace(second, node, 2, pool.now)->workers.at(0).worker == 3);
  const std::uint64_t seen = pool.commands(node).back().sequence;
  pool.restart();
  const std::vector<api::Command> commands = pool.commands(node, seen);
  REQUIRE(commands.size() == 2);
  REQUIRE((commands[0].kind == "end_lease" && commands[0].lease == first));
  REQUIRE((commands[1].kind == "end_worker" && commands[1].lease == second && commands[1].worker == 2));
  REQUIRE(commands[0].sequence > seen);
  REQUIRE(pool.node(node).cores_leased == 3);
  // A client whose answer was lost asks again and gets the same.
  REQUIRE(pool.table.replace(second, node, 2, pool.now)->workers.at(0).worker == 3);
}

TEST_CASE("a place that was lost before the restart can be replaced after it") {
  Durable pool;
  const auto node = pool.add("a", 2);
  pool.ready(node, {1});
  const auto id = pool.grant(1).value().lease;
  pool.ready(node, {2});
  pool.restart();
  REQUIRE(pool.table.lease(id)->workers.empty());
  pool.ready(node, {2});
  REQUIRE(pool.table.replace(id, node, 1, pool.now)->workers.at(0).worker == 2);
}

TEST_CASE("lost nodes and withdrawn orders leave no row") {
  Durable pool;
  const auto a = pool.add("a", 1);
  pool.ready(a, {1});
  REQUIRE(pool.grant(1).ok());
  REQUIRE(pool.table.set_cordoned(a, true, pool.now).ok());
  pool.write();
  REQUIRE((pool.nodes.size() == 1 && pool.held.size() == 1 && pool.orders.at("a").cordoned));
  REQUIRE(pool.table.set_cordoned(a, false, pool.now).ok());
  pool.pass(limits::node_silent_max + 1ms);
  pool.write();
  REQUIRE((pool.nodes.empty() && pool.held.empty() && !pool.orders.at("a").cordoned));
  pool.restart();
  REQUIRE(pool.table.heartbeat(a, {}, pool.now).error().code() == Errc::not_found);
  REQUIRE(pool.table.leases().leases.size() == 1);
}

TEST_CASE("lease time is exact to the end, for each worker") {
  Durable pool;
  const auto node = pool.add("a", 4);
  pool.ready(node, {1, 2, 3});
  lease::Ask ask = Pool::ask(2);
  ask.request.ttl_ms = 1;
  const auto brief = pool.table.grant(ask, pool.now)->lease;
  pool.pass(30ms);  // Noticed late.
  pool.write();
  REQUIRE(pool.leases.at(brief).lease_time == 2ms);
  REQUIRE(pool.leases.at(brief).ended == pool.leases.at(brief).granted + 1ms);
  const auto id = pool.grant(1).value().lease;
  pool.now += 1'234'567ns;
  REQUIRE(pool.table.end(id, "released", pool.now).ok());
  pool.write();
  REQUIRE(pool.leases.at(id).lease_time == 1'234'567ns);
  REQUIRE(pool.leases.at(id).workers_used == 1);
}

TEST_CASE("ended leases stay listed over a restart") {
  Durable pool;
  pool.ready(pool.add("a", 2), {1, 2});
  const auto id = pool.grant(1).value().lease;
  REQUIRE(pool.table.end(id, "revoked", pool.now).ok());
  pool.restart();
  REQUIRE(pool.table.lease(id)->reason == "revoked");
  REQUIRE(pool.table.renew(id, 1000, pool.now).error().code() == Errc::lease_revoked);
}
