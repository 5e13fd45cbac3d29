// Nodes that their owner wants back.

#include "runtime/base/limits.hpp"
#include "runtime/wire/handshake.hpp"
#include "tests/unit/lease/pool.hpp"

using namespace sublet;
using namespace std::chrono_literals;
using lease_test::Pool;

namespace {

const lease::SiteOrder cordon{.why = "Slurm drains it", .cordon = true};

lease::SiteOrder end_at(lease::Time time) {
  return {.why = "Slurm plans job 7 there", .end = time};
}
std::uint64_t token_end(const api::GrantedWorker& worker) {
  return wire::parse_token(worker.token).value().token.expiry_ms;
}

}  // namespace

TEST_CASE("a grant on a node that ends before the lease has tokens to that end", "[lease]") {
  Pool pool;
  const auto node = pool.add("n1", 4);
  const auto other = pool.add("n2", 2);
  pool.ready(node, {1, 2, 3, 4});
  pool.ready(other, {1});
  REQUIRE(pool.table.set_site_order(node, end_at(pool.now + 6s), pool.now).ok());
  const auto grant = pool.grant(4).value();
  CHECK(grant.expiry_ms == lease::to_ms(pool.now + 10s));
  for (const auto& worker : grant.workers)
    CHECK(token_end(worker) == lease::to_ms(pool.now + (worker.node == node ? 6s : 10s)));
  CHECK(pool.node(node).state == "up");
  CHECK(pool.node(node).ends_in_ms == 6000);
  CHECK(pool.node(node).why == "Slurm plans job 7 there");
  const auto renewed = pool.table.renew(grant.lease, 20'000, pool.now).value();
  for (const auto& worker : renewed.workers)
    CHECK(token_end(worker) == lease::to_ms(pool.now + (worker.node == node ? 6s : 20s)));
}

TEST_CASE("a node is closed shortly before its end, then taken back with notice", "[lease]") {
  Pool pool;
  const auto node = pool.add("n1", 4);
  pool.ready(node, {1, 2});
  const auto held = pool.grant(1).value();
  REQUIRE(pool.table.set_site_order(node, end_at(pool.now + 8s), pool.now).ok());
  const auto back = limits::lending_notice;
  pool.pass(4s);
  pool.ready(node, {1, 2});
  pool.pass(4s - back - limits::lending_least - 1ms);
  CHECK(pool.node(node).state == "up");
  pool.pass(1ms);
  CHECK(pool.node(node).state == "cordoned");
  CHECK(!pool.grant(1).ok());
  CHECK(pool.commands(node).empty());
  pool.ready(node, {1, 2});
  pool.pass(limits::lending_least);
  const auto commands = pool.commands(node);
  REQUIRE(commands.size() == 1);
  CHECK(commands[0].kind == "end_worker");
  CHECK(commands[0].reason == "revoked");
  CHECK(commands[0].lease == held.lease);
  CHECK(pool.table.counts().workers_taken_back == 1);
  CHECK(pool.table.lease(held.lease)->state == "active");
  CHECK(pool.table.lease(held.lease)->workers.empty());
}

TEST_CASE("a lease replaces elsewhere what was taken back", "[lease]") {
  Pool pool;
  const auto node = pool.add("n1", 4);
  pool.ready(node, {1});
  const auto held = pool.grant(1).value();
  const auto other = pool.add("n2", 4);
  pool.ready(other, {9});
  REQUIRE(
      pool.table.set_site_order(node, {.why = "taken", .cordon = true, .end = lease::Time{}}, pool.now).ok());
  CHECK(pool.commands(node).size() == 1);
  const auto replaced = pool.table.replace(held.lease, node, 1, pool.now).value();
  CHECK(replaced.workers.at(0).node == other);
}

TEST_CASE("leases on a cordoned node run out, however often they are renewed", "[lease]") {
  Pool pool;
  const auto node = pool.add("n1", 4);
  pool.ready(node, {1, 2});
  const auto held = pool.grant(1).value();
  const lease::Time expiry = pool.now + 10s;
  REQUIRE(pool.table.set_site_order(node, cordon, pool.now).ok());
  CHECK(pool.node(node).state == "cordoned");
  CHECK(pool.node(node).why == "Slurm drains it");
  CHECK(!pool.grant(1).ok());
  for (int i = 0; i < 4; ++i) {
    pool.pass(2s);
    REQUIRE(pool.table.renew(held.lease, 10'000, pool.now).ok());
    pool.ready(node, {1, 2});
    REQUIRE(pool.table.set_site_order(node, {.why = "again", .cordon = true}, pool.now).ok());
    CHECK(pool.commands(node).empty());
  }
  pool.pass(std::chrono::duration_cast<std::chrono::milliseconds>(expiry - pool.now));
  CHECK(pool.commands(node).size() == 1);
  CHECK(pool.table.lease(held.lease)->state == "active");
}

TEST_CASE("an order that is lifted opens the node and wakes those that wait", "[lease]") {
  Pool pool;
  const auto node = pool.add("n1", 4);
  pool.ready(node, {1});
  for (const lease::SiteOrder& order : {cordon, end_at(pool.now)}) {
    REQUIRE(pool.table.set_site_order(node, order, pool.now).ok());
    CHECK(!pool.grant(1).ok());
    static_cast<void>(pool.table.take_changes());
    REQUIRE(pool.table.set_site_order(node, {}, pool.now).ok());
    CHECK(pool.table.take_changes().capacity);
    CHECK(pool.node(node).state == "up");
    CHECK(pool.node(node).ends_in_ms == 0);
  }
  CHECK(pool.grant(1).ok());
  CHECK(pool.table.set_site_order(77, cordon, pool.now).error().code() == Errc::not_found);
}

TEST_CASE("an agent that lends for a time says so in its heartbeat", "[lease]") {
  Pool pool;
  const auto node = pool.add("n1", 4);
  api::Heartbeat said{.ready = {Pool::worker(1), Pool::worker(2)}, .lends_ms = 7'000};
  REQUIRE(pool.table.heartbeat(node, said, pool.now).ok());
  const auto grant = pool.grant(1).value();
  CHECK(token_end(grant.workers.at(0)) == lease::to_ms(pool.now + 7s));
  // Its owner may want it sooner, but not let it go on for longer.
  REQUIRE(pool.table.set_site_order(node, end_at(pool.now + 5s), pool.now).ok());
  CHECK(pool.node(node).ends_in_ms == 5000);
  REQUIRE(pool.table.set_site_order(node, end_at(pool.now + 1h), pool.now).ok());
  CHECK(pool.node(node).ends_in_ms == 7000);
  pool.pass(4s);
  said = {.unchanged = true};
  REQUIRE(pool.table.heartbeat(node, said, pool.now).ok());
  CHECK(pool.node(node).ends_in_ms == 3000);
  said.lends_ms = static_cast<std::uint64_t>(limits::lending_max.count()) + 1;
  CHECK(pool.table.heartbeat(node, said, pool.now).error().code() == Errc::invalid_argument);
}

TEST_CASE("a node that is lost or registers anew leaves no end behind", "[lease]") {
  Pool pool;
  const auto node = pool.add("n1", 4);
  REQUIRE(pool.table.set_site_order(node, end_at(pool.now + 20s), pool.now).ok());
  const auto again = pool.add("n1", 4);
  pool.ready(again, {1});
  CHECK(pool.node(again).ends_in_ms == 0);
  for (int i = 0; i < 30; ++i) {
    pool.pass(1s);
    pool.ready(again, {1});
  }
  CHECK(pool.node(again).state == "up");
}
