// Who gets which worker by the transports that workers offer, and what is known of how clients came to them.

#include "tests/unit/lease/pool.hpp"

using namespace sublet;
using namespace std::chrono_literals;
using lease_test::Pool;

namespace {

/// Nodes whose workers offer tcp, and some of which offer verbs too.
struct Mixed : Pool {
  std::uint64_t plain = add("plain", 16);
  std::uint64_t fast = add("fast", 8);

  Mixed() {
    hear_all({});
    hear(plain, {1, 2, 3}, {});
  }
  static api::WorkerInfo fast_worker(std::uint32_t id) {
    return {id, {{"tcp", "10.0.0.1:1"}, {"verbs", "10.0.0.1:2"}}, 0};
  }
  /// What the fast node says: its two workers are ready but for those that serve.
  void hear_all(const std::vector<api::Heartbeat::Serving>& serving) {
    api::Heartbeat said{.serving = serving};
    for (const std::uint32_t id : {1U, 2U}) {
      const bool busy =
          std::any_of(serving.begin(), serving.end(), [&](const auto& each) { return each.worker == id; });
      if (!busy) said.ready.push_back(fast_worker(id));
    }
    REQUIRE(table.heartbeat(fast, said, now).ok());
  }
  static lease::Ask wishing(const api::Transports& wishes, std::uint32_t workers = 1) {
    lease::Ask ask = Pool::ask(workers);
    ask.request.transports = wishes;
    return ask;
  }
  std::vector<std::uint64_t> nodes_for(const lease::Ask& ask) {
    std::vector<std::uint64_t> nodes;
    const api::LeaseGrant grant = table.grant(ask, now).value();
    for (const auto& worker : grant.workers) nodes.push_back(worker.node);
    return nodes;
  }
  std::string refusal(const lease::Ask& ask) {
    REQUIRE(table.grant(ask, now).error().code() == Errc::no_capacity);
    return table.shortage(ask, now).text;
  }
};

}  // namespace

TEST_CASE("a preferred transport comes before free cores, and the rest of the lease takes what there is") {
  Mixed pool;
  const std::string placement = GENERATE("spread", "pack");
  lease::Ask ask = Mixed::wishing({{}, {"verbs"}, {}}, 4);
  ask.request.placement = placement;
  CHECK(pool.nodes_for(ask) == std::vector{pool.fast, pool.fast, pool.plain, pool.plain});
}

TEST_CASE("without a preference the emptiest node is taken, whatever it offers") {
  Mixed pool;
  CHECK(pool.nodes_for(Mixed::wishing({})) == std::vector{pool.plain});
}

TEST_CASE("a preferred transport comes before a function that is loaded") {
  Mixed pool;
  api::Heartbeat said;
  said.ready = {Pool::worker(1), Pool::worker(2, 5)};
  REQUIRE(pool.table.heartbeat(pool.plain, said, pool.now).ok());
  CHECK(pool.nodes_for(Mixed::wishing({{}, {"verbs"}, {}})) == std::vector{pool.fast});
  const auto grant = pool.table.grant(Mixed::wishing({}), pool.now).value();
  CHECK((grant.workers[0].node == pool.plain && grant.workers[0].worker == 2));
}

TEST_CASE("what is required or forbidden is never granted otherwise, and the refusal says what there is") {
  Mixed pool;
  CHECK(pool.nodes_for(Mixed::wishing({{"verbs"}, {}, {}})) == std::vector{pool.fast});
  CHECK(pool.nodes_for(Mixed::wishing({{}, {}, {"tcp"}})) == std::vector{pool.fast});
  CHECK_THAT(
      pool.refusal(Mixed::wishing({{"verbs"}, {}, {}})),
      Catch::Contains("asked for 1 workers of 1 cores reached over verbs; room for 0 now") &&
          Catch::Contains("; 2 workers offer verbs; 5 offer tcp, 2 offer verbs; unless leases are renewed"));
  CHECK_THAT(pool.refusal(Mixed::wishing({{"shm"}, {}, {}})),
             Catch::Contains("no worker offers shm; 5 offer tcp, 2 offer verbs: allow another transport"));
  CHECK(!pool.table.shortage(Mixed::wishing({{"shm"}, {}, {}}), pool.now).retry_after);
  CHECK_THAT(pool.refusal(Mixed::wishing({{}, {}, {"tcp", "verbs"}})),
             Catch::Contains("no worker offers anything but tcp or verbs"));
  CHECK(pool.table.grant(Mixed::wishing({{"tcp"}, {}, {"tcp"}}), pool.now).error().code() ==
        Errc::invalid_argument);
  CHECK(pool.nodes_for(Mixed::wishing({{"tcp"}, {}, {"verbs"}}, 3)) == std::vector(3, pool.plain));
}

TEST_CASE("a worker's replacement follows the lease's wishes") {
  Mixed pool;
  const auto grant = pool.table.grant(Mixed::wishing({{"verbs"}, {}, {}}, 2), pool.now).value();
  const auto& lost = grant.workers[0];
  CHECK(pool.table.replace(grant.lease, lost.node, lost.worker, pool.now).error().code() ==
        Errc::no_capacity);
  CHECK_THAT(pool.table.shortage(grant.lease, pool.now).text, Catch::Contains("2 workers offer verbs"));
}

TEST_CASE("by which transport a client came is shown, counted and compared with what was preferred") {
  Mixed pool;
  const auto grant = pool.table.grant(Mixed::wishing({{}, {"verbs"}, {}}, 3), pool.now).value();
  REQUIRE(grant.workers[2].node == pool.plain);
  pool.hear_all({{1, grant.lease, "verbs"}, {2, grant.lease, "tcp"}});
  pool.hear(pool.plain, {}, {{grant.workers[2].worker, grant.lease, "tcp"}});
  const api::LeaseInfo info = pool.table.lease(grant.lease).value();
  CHECK(info.transports.prefer == std::vector<std::string>{"verbs"});
  std::map<std::pair<std::uint64_t, std::uint32_t>, api::GrantedWorker> by;
  for (const auto& worker : info.workers) by[{worker.node, worker.worker}] = worker;
  CHECK((by[{pool.fast, 1}].transport == "verbs" && by[{pool.fast, 1}].fallback.empty()));
  CHECK(by[{pool.fast, 2}].fallback == "verbs is preferred, and offered, but the client could not use it");
  CHECK(by[{pool.plain, grant.workers[2].worker}].fallback ==
        "verbs is preferred, but the worker does not offer it");
  using Counted = std::map<std::string, std::uint64_t>;
  CHECK(pool.table.connected() == Counted{{"tcp", 2}, {"verbs", 1}});
  pool.hear_all({{1, grant.lease, "verbs"}, {2, grant.lease, "tcp"}});  // Said again: no other connection.
  pool.hear(pool.fast, {}, {});
  CHECK(pool.table.connected() == Counted{{"tcp", 1}, {"verbs", 0}});
  CHECK(pool.table.counts().connections == Counted{{"tcp", 2}, {"verbs", 1}});
}

TEST_CASE("a client that came and went between two heartbeats is counted, once") {
  Mixed pool;
  const auto grant = pool.table.grant(Mixed::wishing({{"verbs"}, {}, {}}), pool.now).value();
  const std::uint32_t worker = grant.workers[0].worker;
  const api::Heartbeat said{.ended = {{worker, grant.lease, "released", "verbs"}}};
  REQUIRE(pool.table.heartbeat(pool.fast, said, pool.now).ok());
  REQUIRE(pool.table.heartbeat(pool.fast, said, pool.now).ok());  // Its answer was lost.
  CHECK(pool.table.counts().connections.at("verbs") == 1);
  CHECK(pool.table.connected().at("verbs") == 0);
}

TEST_CASE("a transport that a worker does not offer is not believed, nor one that is no name") {
  Mixed pool;
  const auto grant = pool.table.grant(Mixed::wishing({{"verbs"}, {}, {}}), pool.now).value();
  const std::uint32_t worker = grant.workers[0].worker;
  pool.hear_all({{worker, grant.lease, "pigeon"}});
  CHECK(pool.table.lease(grant.lease)->workers[0].transport.empty());
  CHECK(pool.table.connected().empty());
  const api::Heartbeat odd{.serving = {{worker, grant.lease, "ver\"bs"}}};
  CHECK(pool.table.heartbeat(pool.fast, odd, pool.now).error().code() == Errc::invalid_argument);
}
