#include "runtime/manager/store.hpp"

#include <filesystem>
#include <future>

#include "runtime/manager/state_dir.hpp"
#include "tests/catch.hpp"

using namespace sublet;
using namespace std::chrono_literals;
using manager::Batch;
using manager::Store;

namespace {

struct Database {
  std::unique_ptr<manager::StateDir> state = manager::StateDir::open("").value();
  std::unique_ptr<Store> store = Store::open(state->path() / "sublet.db").value();

  Status write(Batch batch) {
    std::promise<Status> written;
    store->write(std::make_shared<Batch>(std::move(batch)),
                 [&](const Status& status) { written.set_value(status); });
    return written.get_future().get();
  }
  void reopen() {
    store.reset();
    store = Store::open(state->path() / "sublet.db").value();
  }
  std::vector<api::UsageRow> usage(manager::UsageQuery::By by, lease::Time now = lease::Time(1h)) {
    return store->usage({.by = by, .tenant = "", .function = "", .after = 0, .limit = 100}, now).value();
  }
};

lease::LeaseRow ended_lease(std::uint64_t id, const std::string& tenant) {
  lease::LeaseRow row{.id = id, .function = 1, .function_name = "f@1"};
  row.request.tenant = tenant;
  row.request.cores = 2;
  row.workers_used = 1;
  row.lease_time = 10ns;
  row.reason = "released";
  row.ended = lease::Time(5s);
  return row;
}

}  // namespace

TEST_CASE("what was written is loaded again, to the last member") {
  Database database;
  Batch batch;
  batch.rows.nodes = {{7, {"n", "boot", 4, 5, 6, "0.1.0", 8}, SecretKey{std::byte{9}}}};
  batch.rows.orders = {{"n", true, false}, {"m", false, true}};
  lease::LeaseRow lease{.id = 11, .function = 3, .function_name = "f@2"};
  lease.request = {.function = "f@2",
                   .tenant = "t",
                   .workers = 2,
                   .cores = 3,
                   .memory_bytes = 4,
                   .ttl_ms = 5,
                   .transports = {"shm", "tcp"},
                   .gpus = 1,
                   .placement = "pack"};
  lease.granted = lease::Time(1s);
  lease.expiry = lease::Time(2s);
  lease.node_lost = true;
  lease.workers_used = 6;
  lease.lease_time = 77ns;
  lease.places = {{{7, 1}, {}}, {{7, 2}, {7, 9}}};
  batch.rows.leases = {lease, ended_lease(12, "t")};
  batch.rows.held = {{{7, 1}, 11, 3, 4, 1, true, 3, lease::Time(9s), {{"shm", "/a=b"}, {"tcp", "[::1]:1"}}}};
  batch.functions = {{3, "f", "2", std::string(64, 'a'), 12}};
  batch.now = lease::Time(123ns);
  batch.first_id = 42;
  REQUIRE(database.write(batch).ok());
  REQUIRE(database.store->set_clock("boot", -5ns).ok());
  database.reopen();
  const manager::Loaded loaded = database.store->load().value();
  REQUIRE((loaded.last == lease::Time(123ns) && loaded.next_id == 42 && loaded.next_function == 4));
  REQUIRE((loaded.boot_id == "boot" && loaded.clock == -5ns));
  const lease::NodeRow& node = loaded.saved.nodes.at(0);
  REQUIRE((node.id == 7 && node.about.name == "n" && node.about.gpus == 8 &&
           node.key == batch.rows.nodes[0].key));
  REQUIRE(
      (loaded.saved.orders.size() == 2 && loaded.saved.orders[0].drained && loaded.saved.orders[1].cordoned));
  REQUIRE(loaded.saved.leases.size() == 2);
  const auto active = std::find_if(loaded.saved.leases.begin(), loaded.saved.leases.end(),
                                   [](const lease::LeaseRow& row) { return row.reason.empty(); });
  REQUIRE((active->id == 11 && active->request.transports == lease.request.transports && active->node_lost));
  REQUIRE((active->request.memory_bytes == 4 && active->request.gpus == 1 &&
           active->request.placement == "pack"));
  REQUIRE((active->granted == lease.granted && active->expiry == lease.expiry && active->lease_time == 77ns));
  REQUIRE((active->places.size() == 2 && active->places[1].worker == lease::HeldKey{7, 2} &&
           active->places[1].before == lease::HeldKey{7, 9} && active->places[0].before == lease::HeldKey{}));
  const lease::HeldRow& held = loaded.saved.held.at(0);
  REQUIRE((held.key == lease::HeldKey{7, 1} && held.lease == 11 && held.ending && held.loaded == 3));
  REQUIRE((held.since == lease::Time(9s) && held.endpoints == batch.rows.held[0].endpoints));
  REQUIRE((loaded.functions.at(0).name == "f" && loaded.functions[0].bytes == 12));
}

TEST_CASE("old leases are folded into totals, and nothing that was used is lost or counted twice") {
  Database database;
  database.store->keep_ended(2);
  for (std::uint64_t id = 1; id <= 6; ++id) {
    Batch batch;
    batch.rows.leases = {ended_lease(id, id % 2 == 0 ? "even" : "odd")};
    batch.usage = {{100 + id, id, 5, 4, 3, 2}};
    REQUIRE(database.write(batch).ok());
  }
  REQUIRE(database.usage(manager::UsageQuery::By::lease).size() < 6);
  Batch late;  // An account of a lease that is folded already, said again.
  late.usage = {{101, 1, 5, 4, 3, 2}};
  REQUIRE(database.write(late).ok());
  const auto tenants = database.usage(manager::UsageQuery::By::tenant);
  REQUIRE((tenants.size() == 2 && tenants[0].tenant == "even" && tenants[1].tenant == "odd"));
  for (const api::UsageRow& row : tenants) {
    REQUIRE((row.leases == 3 && row.workers == 3 && row.calls_started == 15 && row.calls == 12));
    REQUIRE((row.execution_ns == 9 && row.hot_ns == 6 && row.lease_ns == 30 && row.core_ns == 60));
  }
  REQUIRE(database.usage(manager::UsageQuery::By::function).at(0).calls == 24);
}

TEST_CASE("a lease that still holds a worker is not folded") {
  Database database;
  database.store->keep_ended(0);
  Batch batch;
  batch.rows.leases = {ended_lease(1, "t")};
  batch.rows.held = {{{7, 1}, 1, 1, 1, 0, true, 0, lease::Time(1s), {}}};
  REQUIRE(database.write(batch).ok());
  REQUIRE(database.usage(manager::UsageQuery::By::lease).size() == 1);
  Batch gone;
  gone.rows.held_gone = {{7, 1}};
  REQUIRE(database.write(gone).ok());
  REQUIRE(database.usage(manager::UsageQuery::By::lease).empty());
}

TEST_CASE("an active lease is accounted for until now, and not beyond its end") {
  Database database;
  Batch batch;
  lease::LeaseRow lease{.id = 1, .function = 1, .function_name = "f@1"};
  lease.request.cores = 4;
  lease.expiry = lease::Time(10s);
  lease.lease_time = 1s;
  batch.rows.leases = {lease};
  batch.rows.held = {{{7, 1}, 1, 4, 1, 0, false, 0, lease::Time(2s), {}}};
  REQUIRE(database.write(batch).ok());
  REQUIRE(database.usage(manager::UsageQuery::By::lease, lease::Time(5s)).at(0).lease_ns == 4'000'000'000);
  REQUIRE(database.usage(manager::UsageQuery::By::tenant, lease::Time(60s)).at(0).core_ns == 36'000'000'000);
}

TEST_CASE("a transaction that failed is written with the next") {
  Batch first;
  first.rows.held = {{{1, 1}, 5}, {{1, 2}, 5}};
  first.rows.held_gone = {{1, 3}};
  Batch second;
  second.rows.held_gone = {{1, 1}};
  second.rows.held = {{{1, 3}, 6}};
  first.append(std::move(second));
  Database database;
  REQUIRE(database.write(first).ok());
  const manager::Loaded loaded = database.store->load().value();
  REQUIRE(loaded.saved.held.size() == 2);
  REQUIRE(
      (loaded.saved.held[0].key == lease::HeldKey{1, 2} && loaded.saved.held[1].key == lease::HeldKey{1, 3}));
}

TEST_CASE("a function's number is not used again, whatever was written of it") {
  Database database;
  const auto next = [&](const Batch& batch) {
    REQUIRE(database.write(batch).ok());
    database.reopen();
    return database.store->load()->next_function;
  };
  const api::FunctionInfo second{2, "g", "1", std::string(64, 'a'), 1};
  REQUIRE(next({.functions = {{5, "f", "1", std::string(64, 'a'), 1}}}) == 6);
  REQUIRE(next({.functions_gone = {5}}) == 6);
  REQUIRE(next({.functions = {second}}) == 6);  // Its lost bytes are back.
  REQUIRE(next({.functions_gone = {2}}) == 6);
  REQUIRE(next({.functions_gone = {7}}) == 8);  // Deployed and removed before anything was written.
}
