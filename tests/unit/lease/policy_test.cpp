// Who gets what, and when: placement, quotas, shares, orders of operators and nodes that come and go.

#include "runtime/base/limits.hpp"
#include "runtime/lease/waiting.hpp"
#include "tests/unit/lease/pool.hpp"

using namespace sublet;
using namespace std::chrono_literals;
using lease_test::Pool;

namespace {

lease::Ask ask_of(const std::string& tenant, std::uint32_t workers = 1, std::uint32_t cores = 1) {
  lease::Ask ask = Pool::ask(workers, cores);
  ask.request.tenant = tenant;
  return ask;
}

std::set<std::uint64_t> nodes_of(const api::LeaseGrant& grant) {
  std::set<std::uint64_t> nodes;
  for (const api::GrantedWorker& worker : grant.workers) nodes.insert(worker.node);
  return nodes;
}

std::vector<std::uint64_t> served(lease::Waiting& waiting, const std::map<std::string, double>& claims,
                                  const std::set<std::uint64_t>& fitting, int misfits_max = 100) {
  std::vector<std::uint64_t> order;
  waiting.serve([&](const std::string& tenant) { return claims.at(tenant); },
                [&](std::uint64_t number) {
                  if (fitting.contains(number)) order.push_back(number);
                  return fitting.contains(number);
                },
                misfits_max);
  return order;
}

}  // namespace

TEST_CASE("a lease is packed onto the fullest node with room, or spread over the emptiest") {
  Pool pool;
  const auto small = pool.add("small", 4);
  const auto large = pool.add("large", 8);
  pool.ready(small, {1, 2, 3, 4});
  pool.ready(large, {1, 2, 3, 4, 5, 6, 7, 8});
  lease::Ask pack = Pool::ask(3);
  pack.request.placement = "pack";
  REQUIRE(nodes_of(pool.table.grant(pack, pool.now).value()) == std::set{small});
  REQUIRE(nodes_of(pool.table.grant(pack, pool.now).value()) == std::set{small, large});  // One left there.
  lease::Ask spread = Pool::ask(2);
  spread.request.placement = "spread";
  REQUIRE(nodes_of(pool.table.grant(spread, pool.now).value()) == std::set{large});
  spread.request.placement = "heap";
  REQUIRE(pool.table.grant(spread, pool.now).error().code() == Errc::invalid_argument);
}

TEST_CASE("requests that do not say follow the site's placement") {
  Pool pool;
  pool.table = lease::LeaseTable(1000, {.placement = "pack", .tenants = {}});
  const auto a = pool.add("a", 4);
  const auto b = pool.add("b", 8);
  pool.ready(a, {1, 2});
  pool.ready(b, {1, 2});
  REQUIRE(nodes_of(pool.grant(2).value()) == std::set{a});
}

TEST_CASE("GPUs bound a placement") {
  Pool pool;
  api::NodeRegistration about{"g", "boot", 8, 16ULL << 30, 1, "0.1.0", 2};
  const auto with = pool.table.register_node(about, pool.key, pool.now).value();
  pool.ready(pool.add("none", 16), {1, 2, 3, 4});
  pool.ready(with, {1, 2, 3, 4});
  lease::Ask ask = Pool::ask(2);
  ask.request.gpus = 1;
  REQUIRE(nodes_of(pool.table.grant(ask, pool.now).value()) == std::set{with});
  REQUIRE(pool.node(with).gpus_leased == 2);
  ask.request.workers = 1;
  REQUIRE(pool.table.grant(ask, pool.now).error().code() == Errc::no_capacity);
  REQUIRE_THAT(pool.table.shortage(ask, pool.now).text, Catch::Contains("1 GPUs"));
}

TEST_CASE("a tenant stays within its quota, and gets it back") {
  Pool pool;
  pool.table = lease::LeaseTable(1000, {.placement = "spread", .tenants = {{"t", {1, 4, 2}}}});
  pool.ready(pool.add("a", 16), {1, 2, 3, 4, 5, 6, 7, 8});
  const auto first = pool.table.grant(ask_of("t", 1, 3), pool.now)->lease;
  const lease::Ask more = ask_of("t", 2, 1);
  REQUIRE(pool.table.grant(more, pool.now).error().code() == Errc::no_capacity);
  REQUIRE_THAT(pool.table.shortage(more, pool.now).text,
               Catch::Contains("tenant t has 1 leases with 3 cores and asked for 2 more") &&
                   Catch::Contains("2 leases 4 cores"));
  REQUIRE(pool.table.grant(ask_of("t", 1, 1), pool.now).ok());
  REQUIRE(pool.table.end(first, "released", pool.now).ok());
  REQUIRE(pool.table.grant(ask_of("t", 1, 2), pool.now).ok());
  REQUIRE(pool.table.grant(ask_of("t", 1, 1), pool.now).error().code() == Errc::no_capacity);  // Two leases.
  REQUIRE(pool.table.grant(ask_of("other", 1, 1), pool.now).ok());
}

TEST_CASE("tenants without a policy are forgotten with their last lease") {
  Pool pool;
  pool.ready(pool.add("a", 2), {1, 2});
  const auto id = pool.table.grant(ask_of("t"), pool.now)->lease;
  REQUIRE(pool.table.tenants().size() == 1);
  REQUIRE(pool.table.end(id, "released", pool.now).ok());
  REQUIRE(pool.table.grant(ask_of("nothing", 64), pool.now).error().code() == Errc::no_capacity);
  REQUIRE(pool.table.tenants().empty());
}

TEST_CASE("who holds least by its share is served first") {
  Pool pool;
  pool.table = lease::LeaseTable(1000, {.placement = "spread", .tenants = {{"rich", {4, 0, 0}}}});
  pool.ready(pool.add("a", 16), {1, 2, 3, 4});
  REQUIRE(pool.table.grant(ask_of("rich", 1, 4), pool.now).ok());
  REQUIRE(pool.table.grant(ask_of("poor", 1, 2), pool.now).ok());
  REQUIRE(pool.table.claim("rich") == Approx(4.0 / 16 / 4));
  REQUIRE(pool.table.claim("poor") == Approx(2.0 / 16));
  REQUIRE(pool.table.claim("new") == 0);
}

TEST_CASE("waiting requests: replacements, then tenants by claim, each tenant in its order") {
  lease::Waiting waiting;
  waiting.add(1, "b", false, lease::Time(1s));
  waiting.add(2, "a", false, lease::Time(2s));
  waiting.add(3, "a", false, lease::Time(1s));
  waiting.add(4, "", true, lease::Time(1s));
  const std::map<std::string, double> claims{{"a", 0.2}, {"b", 0.1}};
  SECTION("in order") {
    REQUIRE(served(waiting, claims, {1, 2, 3, 4}) == std::vector<std::uint64_t>{4, 1, 2, 3});
  }
  SECTION("a large one is not overtaken by its tenant's small ones") {
    REQUIRE(served(waiting, claims, {1, 3, 4}) == std::vector<std::uint64_t>{4, 1});
    REQUIRE(waiting.of("a") == 2);
    waiting.remove(2);
    REQUIRE(served(waiting, claims, {3}) == std::vector<std::uint64_t>{3});
    REQUIRE(waiting.size() == 0);
  }
  SECTION("the work of one change is bounded") {
    REQUIRE(served(waiting, claims, {2}, 1).empty());
  }
  SECTION("deadlines") {
    REQUIRE(waiting.take_overdue(lease::Time(1s)) == std::vector<std::uint64_t>{1, 3, 4});
    REQUIRE(waiting.size() == 1);
  }
}

TEST_CASE("when more wait than one change can try, later changes reach them all") {
  lease::Waiting waiting;
  const bool replacement = GENERATE(false, true);
  std::map<std::string, double> claims{{"", 0}};
  constexpr std::uint64_t count = 50;
  for (std::uint64_t number = 1; number <= count; ++number) {
    const std::string tenant = replacement ? "" : "t" + std::to_string(number);
    claims[tenant] = static_cast<double>(number);
    waiting.add(number, tenant, replacement, lease::Time(1h));
  }
  const int misfits_max = replacement ? 14 : 7;  // Replacements may use half of it.
  const auto tries = [&] {
    std::vector<std::uint64_t> numbers;
    waiting.serve([&](const std::string& tenant) { return claims.at(tenant); },
                  [&](std::uint64_t number) {
                    numbers.push_back(number);
                    return false;
                  },
                  misfits_max);
    return numbers;
  };
  std::vector<std::uint64_t> all;
  for (std::uint64_t first = 1; first + 7 <= count; first += 7) {
    REQUIRE(tries().front() == first);
  }
  // The last of the round, and the first ones again.
  REQUIRE(tries() == std::vector<std::uint64_t>{50, 1, 2, 3, 4, 5, 6});
  REQUIRE(tries().front() == 7);
  // What fits is found though all that have a smaller claim do not.
  for (int changes = 0; waiting.size() == count; ++changes) {
    REQUIRE(changes <= 8);
    static_cast<void>(served(waiting, claims, {49}, misfits_max));
  }
  // One that comes is not behind all that were tried in vain.
  REQUIRE(tries().size() == 7);
  claims["new"] = 100;
  waiting.add(count + 1, replacement ? "" : "new", replacement, lease::Time(1h));
  for (int changes = 0; waiting.size() == count; ++changes) {
    REQUIRE(changes <= 8);
    static_cast<void>(served(waiting, claims, {count + 1}, misfits_max));
  }
}

TEST_CASE("few that wait are always tried in order") {
  lease::Waiting waiting;
  const std::map<std::string, double> claims{{"a", 0.1}, {"b", 0.2}, {"c", 0.3}};
  std::uint64_t number = 0;
  for (const auto& [tenant, claim] : claims) waiting.add(++number, tenant, false, lease::Time(1h));
  for (int i = 0; i < 3; ++i) {
    std::vector<std::uint64_t> tried;
    waiting.serve([&](const std::string& tenant) { return claims.at(tenant); },
                  [&](std::uint64_t each) {
                    tried.push_back(each);
                    return false;
                  },
                  4);
    REQUIRE(tried == std::vector<std::uint64_t>{1, 2, 3});
  }
}

TEST_CASE("requests may go while others are served") {
  lease::Waiting waiting;
  for (std::uint64_t number = 1; number <= 4; ++number)
    waiting.add(number, std::string(1, static_cast<char>('a' + number)), number == 4, lease::Time(1h));
  std::vector<std::uint64_t> order;
  waiting.serve([](const std::string&) { return 0; },
                [&](std::uint64_t number) {
                  order.push_back(number);
                  if (number == 4) waiting.remove(1);  // Its client hears the answer and closes the others.
                  if (number == 2) waiting.remove(3);
                  return true;
                },
                100);
  REQUIRE(order == std::vector<std::uint64_t>{4, 2});
  REQUIRE(waiting.size() == 0);
}

TEST_CASE("a refusal says when there may be room, or that there never is") {
  Pool pool;
  const auto node = pool.add("a", 4);
  pool.ready(node, {1, 2, 3, 4, 5, 6});
  lease::Ask longer = Pool::ask(1, 2);
  longer.request.ttl_ms = 30'000;
  REQUIRE(pool.table.grant(longer, pool.now).ok());
  REQUIRE(pool.grant(1, 2).ok());
  REQUIRE(pool.table.shortage(Pool::ask(1, 1), pool.now).retry_after == 10s);
  REQUIRE(pool.table.shortage(Pool::ask(1, 4), pool.now).retry_after == 30s);
  REQUIRE_THAT(pool.table.shortage(Pool::ask(1, 1), pool.now).text, Catch::Contains("there is room in 10 s"));
  const lease::Shortage never = pool.table.shortage(Pool::ask(1, 5), pool.now);
  REQUIRE_FALSE(never.retry_after.has_value());
  REQUIRE_THAT(never.text, Catch::Contains("could not give it even when empty (the largest has 4 cores"));
}

TEST_CASE("a cordoned node keeps what it has, gets nothing new, and stays so when it registers again") {
  Pool pool;
  const auto node = pool.add("a", 2);
  pool.ready(node, {1, 2});
  const auto id = pool.grant(1).value().lease;
  REQUIRE(pool.table.set_cordoned(node, true, pool.now)->state == "cordoned");
  REQUIRE(pool.grant(1).error().code() == Errc::no_capacity);
  REQUIRE(pool.table.renew(id, 10'000, pool.now).ok());
  REQUIRE(pool.commands(node).empty());
  const auto again = pool.add("a", 2);
  REQUIRE(pool.node(again).state == "cordoned");
  static_cast<void>(pool.table.take_changes());
  REQUIRE(pool.table.set_cordoned(again, false, pool.now)->state == "up");
  REQUIRE(pool.table.take_changes().capacity);
}

TEST_CASE("a drained node is told again when it registers again") {
  Pool pool;
  REQUIRE(pool.table.set_draining(pool.add("a", 2), true, pool.now).ok());
  const auto again = pool.add("a", 2);
  REQUIRE(pool.node(again).state == "draining");
  REQUIRE(pool.commands(again).at(0).kind == "drain");
  REQUIRE(pool.table.set_draining(again, false, pool.now).ok());
  REQUIRE(pool.table.remove_node(again, pool.now).ok());
  REQUIRE(pool.node(pool.add("a", 2)).state == "up");
}

TEST_CASE("a node that is lost again and again waits longer and longer before it is granted") {
  Pool pool;
  const auto come = [&] {
    const auto id = pool.add("a", 2);
    pool.ready(id, {1});
    return id;
  };
  come();
  REQUIRE(pool.node(come()).state == "up");  // One loss may happen.
  auto node = come();
  REQUIRE(pool.node(node).state == "probation");
  REQUIRE(pool.node(node).probation_ms == 5000);
  REQUIRE(pool.grant(1).error().code() == Errc::no_capacity);
  pool.pass(4999ms);
  pool.ready(node, {1});
  REQUIRE(pool.node(node).state == "probation");
  static_cast<void>(pool.table.take_changes());
  pool.pass(1ms);
  REQUIRE(pool.node(node).state == "up");
  REQUIRE(pool.table.take_changes().capacity);
  REQUIRE(pool.grant(1).ok());
  REQUIRE(pool.node(come()).probation_ms == 10'000);
  for (int i = 0; i < 40; ++i) node = come();
  REQUIRE(pool.node(node).probation_ms == 120'000);
  pool.now += limits::flap_memory;
  REQUIRE(pool.table.remove_node(node, pool.now).ok());  // Leaving in order is no loss.
  REQUIRE(pool.node(come()).state == "up");
}

TEST_CASE(
    "a heartbeat that says nothing new keeps the node, and is not taken before it has said everything") {
  Pool pool;
  const auto node = pool.add("a", 1);
  const api::Heartbeat same{.unchanged = true};
  REQUIRE(pool.table.heartbeat(node, same, pool.now).value());
  REQUIRE_FALSE(pool.table.heartbeat(node, {.ready = {Pool::worker(1)}}, pool.now).value());
  for (int i = 0; i < 4; ++i) {
    pool.pass(limits::node_silent_max);
    REQUIRE_FALSE(pool.table.heartbeat(node, same, pool.now).value());
  }
  REQUIRE(pool.node(node).workers_ready == 1);
  // It counts as hearing of a worker that is given back.
  REQUIRE(pool.table.end(pool.grant(1)->lease, "released", pool.now).ok());
  REQUIRE(pool.commands(node, pool.commands(node).back().sequence).empty());
  REQUIRE_FALSE(pool.table.heartbeat(node, same, pool.now).value());
  REQUIRE(pool.node(node).cores_leased == 1);
  REQUIRE_FALSE(pool.table.heartbeat(node, same, pool.now).value());
  REQUIRE(pool.node(node).cores_leased == 0);
  api::Heartbeat both{.unchanged = true, .ready = {Pool::worker(1)}};
  REQUIRE(pool.table.heartbeat(node, both, pool.now).error().code() == Errc::invalid_argument);
}

TEST_CASE("usage that cannot be is refused") {
  Pool pool;
  const auto node = pool.add("a", 1);
  const auto said = [&](api::WorkerUsage usage) {
    return pool.table.heartbeat(node, {.usage = {usage}}, pool.now).ok();
  };
  REQUIRE(said({1, 2, 3, 3, 4, 5}));
  REQUIRE_FALSE(said({0, 2, 3, 3, 4, 5}));
  REQUIRE_FALSE(said({1, 0, 3, 3, 4, 5}));
  REQUIRE_FALSE(said({1, 2, 3, 4, 4, 5}));
  REQUIRE_FALSE(said({1, 2, std::uint64_t{1} << 53, 4, 4, 5}));
  REQUIRE_FALSE(said({1, 2, 3, 3, UINT64_MAX, 5}));
  REQUIRE_FALSE(said({1, 2, 3, 3, 4, UINT64_MAX}));
  REQUIRE(said({(std::uint64_t{1} << 53) - 1, (std::uint64_t{1} << 53) - 1, 3, 3, 4, INT64_MAX}));
  REQUIRE_FALSE(said({std::uint64_t{1} << 53, 2, 3, 3, 4, 5}));
  REQUIRE_FALSE(said({1, std::uint64_t{1} << 53, 3, 3, 4, 5}));
}

TEST_CASE("leases that cannot be are refused, and a worker that nobody knows is ended, not believed") {
  Pool pool;
  const auto node = pool.add("a", 4);
  pool.ready(node, {1, 2});
  const auto lease = pool.grant(1)->lease;
  const auto refused = [&](const api::Heartbeat& said) {
    const Result<bool> heard = pool.table.heartbeat(node, said, pool.now);
    return !heard && heard.error().code() == Errc::invalid_argument;
  };
  for (const std::uint64_t number : {std::uint64_t{1} << 53, std::uint64_t{UINT64_MAX}}) {
    CHECK(refused({.serving = {{1, number}}}));
    CHECK(refused({.ended = {{1, number, "crashed"}}}));
  }
  CHECK(refused({.serving = {{1, 0}}}));
  CHECK(refused({.serving = {{1, lease}, {1, lease}}}));
  CHECK(refused({.ready = {Pool::worker(1)}, .serving = {{1, lease}}}));
  CHECK(refused({.ready = {Pool::worker(UINT32_MAX), Pool::worker(UINT32_MAX)}}));
  CHECK(refused({.unchanged = true, .serving = {{1, lease}}}));
  REQUIRE(pool.node(node).workers_ready == 1);  // Nothing of it was taken.
  pool.hear(node, {2}, {{1, lease}, {77, lease}, {78, lease + 1}, {UINT32_MAX, 1}});
  REQUIRE(pool.node(node).workers_serving == 1);
  REQUIRE(pool.table.lease(lease)->workers.size() == 1);
  std::vector<std::string> told;
  for (const api::Command& command : pool.commands(node))
    told.push_back(command.kind + " " + std::to_string(command.lease) + " " + std::to_string(command.worker));
  const std::string active = std::to_string(lease);
  REQUIRE(told == std::vector<std::string>{"end_worker " + active + " 77",
                                           "end_lease " + std::to_string(lease + 1) + " 0", "end_lease 1 0"});
}

TEST_CASE("a lease's rows name the nodes that lent to it, each once") {
  Pool pool;
  const auto a = pool.add("a", 4);
  const auto b = pool.add("b", 1);
  pool.ready(a, {1, 2, 3, 4});
  pool.ready(b, {1});
  const auto lent = [&] {
    std::vector<std::string> names;
    for (const lease::LeaseRow& row : pool.table.take_rows().leases) {
      for (const lease::Lender& lender : row.lent) names.push_back(lender.name + " " + lender.machine);
    }
    return names;
  };
  using Names = std::vector<std::string>;
  const auto id = pool.grant(2)->lease;
  REQUIRE(lent() == Names{"a boot"});
  REQUIRE(pool.table.renew(id, 10'000, pool.now).ok());
  REQUIRE(lent().empty());
  REQUIRE(pool.table.replace(id, a, 1, pool.now)->workers.at(0).node == a);
  REQUIRE(lent().empty());
  REQUIRE(pool.table.set_cordoned(a, true, pool.now).ok());
  REQUIRE(pool.table.replace(id, a, 2, pool.now)->workers.at(0).node == b);
  REQUIRE(pool.table.end(id, "released", pool.now).ok());
  REQUIRE(lent() == Names{"b boot"});
}
