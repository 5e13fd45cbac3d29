#include "runtime/manager/store.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <future>
#include <vector>

#include "runtime/base/clock.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/manager/sqlite.hpp"
#include "runtime/manager/state_dir.hpp"
#include "tests/catch.hpp"

using namespace sublet;
using namespace std::chrono_literals;
using manager::Batch;
using manager::Store;

namespace {

struct Database {
  /// @param where A folder of its own, to be made; empty: a temporary one.
  explicit Database(const std::string& where = "") : state(manager::StateDir::open(where).value()) {}
  std::unique_ptr<manager::StateDir> state;
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
  Result<std::vector<api::UsageRow>> page(std::uint64_t after, std::uint32_t limit) {
    return store->usage({.by = manager::UsageQuery::By::worker, .after = after, .limit = limit},
                        lease::Time(1h));
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
  row.lent = {{"n", "boot"}};
  return row;
}

manager::Account used(std::uint64_t id, std::uint64_t lease, std::uint64_t calls, std::uint64_t time_ns = 0,
                      const lease::Lender& from = {"n", "boot"}) {
  return {from, {id, lease, calls, calls, time_ns, time_ns}};
}

/// Changes the file as a tool of the site might, or an older manager.
void execute(const Database& database, const std::string& sql) {
  sqlite3* raw = nullptr;
  REQUIRE(sqlite3_open((database.state->path() / "sublet.db").c_str(), &raw) == SQLITE_OK);
  const manager::sqlite::Handle handle(raw);
  REQUIRE(manager::sqlite::execute(raw, sql).ok());
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
                   .transports = {.require = {"shm", "tcp"}, .prefer = {"tcp"}, .forbid = {"verbs", "udp"}},
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
  REQUIRE((active->id == 11 && active->node_lost));
  REQUIRE(active->request.transports.require == lease.request.transports.require);
  REQUIRE(active->request.transports.prefer == lease.request.transports.prefer);
  REQUIRE(active->request.transports.forbid == lease.request.transports.forbid);
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
    batch.usage = {{{"n", "boot"}, {100 + id, id, 5, 4, 3, 2}}};
    REQUIRE(database.write(batch).ok());
  }
  REQUIRE(database.usage(manager::UsageQuery::By::lease).size() < 6);
  Batch late;  // An account of a lease that is folded already, said again.
  late.usage = {{{"n", "boot"}, {101, 1, 5, 4, 3, 2}}};
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

TEST_CASE("what somebody waits for is synced at once, and what nobody does is not") {
  // In memory, where a sync takes no time of its own.
  const std::filesystem::path memory = "/dev/shm/sublet-store-test." + std::to_string(::getpid());
  Database database(memory);
  std::promise<void>* synced = nullptr;
  database.store->on_synced([&](std::uint64_t, const Status&) { synced->set_value(); });
  const auto time_of = [&](bool hurry) {
    std::promise<void> done;
    synced = &done;
    const TimePoint begun = SteadyClock::now();
    REQUIRE(database.write({}).ok());
    if (hurry) database.store->hurry();
    done.get_future().wait();
    return SteadyClock::now() - begun;
  };
  // Each begins right after a sync.
  std::vector<SteadyClock::duration> hurried;
  std::vector<SteadyClock::duration> patient;
  for (int i = 0; i < 21; ++i) {
    hurried.push_back(time_of(true));
    patient.push_back(time_of(false));
  }
  std::ranges::sort(hurried);
  std::ranges::sort(patient);
  std::filesystem::remove_all(memory);
  REQUIRE(2 * hurried[10] < patient[10]);
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

TEST_CASE("sums that no number can hold stay at the greatest, in accounts and when leases are folded") {
  constexpr std::uint64_t most = INT64_MAX;
  Database database;
  using By = manager::UsageQuery::By;
  const auto spend = [&](std::uint64_t id, const std::string& function) {
    Batch batch;
    batch.rows.leases = {ended_lease(id, "t")};
    batch.rows.leases[0].function_name = function;
    batch.rows.leases[0].lease_time = std::chrono::nanoseconds(most);
    batch.usage = {used(id, id, std::uint64_t{1} << 53, most)};
    REQUIRE(database.write(batch).ok());
  };
  const auto check = [&] {
    for (const By by : {By::lease, By::tenant, By::function}) {
      for (const api::UsageRow& row : database.usage(by)) {
        CHECK(row.execution_ns >= 9'200'000'000'000'000'000);
        CHECK((row.hot_ns <= most && row.lease_ns <= most && row.core_ns <= most));
        CHECK(row.core_ns >= row.lease_ns);
        CHECK((row.gpu_ns == 0 && row.calls == row.leases << 53));
      }
    }
  };
  spend(1, "f@1");
  spend(2, "f@1");
  spend(3, "g@1");
  spend(4, "g@1");
  check();
  database.store->keep_ended(0);
  REQUIRE(database.write({.now = lease::Time(1s)}).ok());
  REQUIRE(database.usage(By::lease).empty());
  REQUIRE(database.usage(By::function).size() == 2);
  check();
  spend(5, "g@1");  // Folded onto what is the greatest already.
  REQUIRE(database.usage(By::tenant).at(0).leases == 5);
  check();
}

TEST_CASE("leases that cannot be folded stop no transaction and stay accounted for") {
  Database database;
  database.store->keep_ended(1);
  execute(database, "ALTER TABLE totals RENAME TO elsewhere");
  for (std::uint64_t id = 1; id <= 3; ++id) {
    Batch batch;
    batch.rows.leases = {ended_lease(id, "t")};
    batch.usage = {used(id, id, 5)};
    REQUIRE(database.write(batch).ok());
  }
  execute(database, "ALTER TABLE elsewhere RENAME TO totals");
  REQUIRE(database.usage(manager::UsageQuery::By::lease).size() == 3);
  REQUIRE(database.usage(manager::UsageQuery::By::tenant).at(0).calls == 15);
}

TEST_CASE("accounts by worker come in pages of whole leases") {
  Database database;
  Batch batch;
  std::uint64_t account = 0;
  for (const auto& [id, workers] : std::map<std::uint64_t, std::uint32_t>{{1, 2}, {2, 2}, {4, 3}, {9, 1}}) {
    batch.rows.leases.push_back(ended_lease(id, "t"));
    batch.rows.leases.back().workers_used = workers;
    for (std::uint32_t i = 0; i < workers; ++i) batch.usage.push_back(used(++account, id, 1));
  }
  REQUIRE(database.write(batch).ok());
  const std::uint32_t limit = GENERATE(3, 4, 5, 7, 8);
  std::vector<std::uint64_t> seen;
  for (std::uint64_t after = 0;;) {
    const std::vector<api::UsageRow> page = database.page(after, limit).value();
    if (page.empty()) break;
    REQUIRE(page.size() <= limit);
    for (const api::UsageRow& row : page) seen.push_back(row.worker);
    after = page.back().lease;
  }
  REQUIRE(seen == std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8});
  REQUIRE(database.page(0, 4)->size() == 4);  // Two whole leases.
  const Result<std::vector<api::UsageRow>> cut = database.page(2, 2);
  REQUIRE(cut.error().code() == Errc::invalid_argument);
  REQUIRE_THAT(cut.error().detail(), Catch::Contains("lease 4 has more than 2 workers"));
}

TEST_CASE("a lease is accounted for by nodes that lent to it, and as often as it had workers") {
  Database database;
  Batch grant;
  lease::LeaseRow lease{.id = 1, .function = 1, .function_name = "f@1", .workers_used = 2};
  lease.request.tenant = "t";
  lease.lent = {{"a", "boot-a"}, {"silent", ""}};
  grant.rows.leases = {lease, ended_lease(2, "other")};
  grant.usage = {used(10, 1, 7, 0, {"stranger", "boot-x"}),
                 used(11, 1, 7, 0, {"boot-a", ""}),                                  // A name is no machine.
                 used(12, 1, 7, 0, {"", ""}), used(13, 1, 5, 0, {"a", "boot-new"}),  // Booted again.
                 used(14, 9, 7, 0, {"a", "boot-a"})};
  REQUIRE(database.write(grant).ok());
  const auto accounts = [&] {
    std::map<std::uint64_t, std::uint64_t> calls;
    for (const api::UsageRow& row : database.usage(manager::UsageQuery::By::worker))
      calls[row.worker] = row.calls;
    return calls;
  };
  using Calls = std::map<std::uint64_t, std::uint64_t>;
  REQUIRE(accounts() == Calls{{13, 5}});
  database.reopen();  // And by those that lent before the manager was restarted.
  Batch replaced;
  lease.lent = {{"b", "boot-b"}};
  lease.workers_used = 3;
  replaced.rows.leases = {lease};
  replaced.usage = {used(15, 1, 2, 0, {"b", "boot-b"}), used(16, 1, 3, 0, {"heir", "boot-a"}),
                    used(17, 1, 4, 0, {"a", "boot-a"}),  // There were three workers.
                    used(13, 1, 6, 0, {"a", "boot-a"})};
  REQUIRE(database.write(replaced).ok());
  REQUIRE(accounts() == Calls{{13, 6}, {15, 2}, {16, 3}});
  Batch stolen;  // Somebody else's account, told for a lease of one's own.
  stolen.usage = {used(13, 2, 99)};
  REQUIRE(database.write(stolen).ok());
  REQUIRE(accounts() == Calls{{13, 6}, {15, 2}, {16, 3}});
}

TEST_CASE("a store that is opened keeps nothing in a log that was written before") {
  Database database;
  REQUIRE(database.write({.functions = {{5, "f", "1", std::string(64, 'a'), 1}}}).ok());
  const auto killed = database.state->path() / "killed";
  std::filesystem::create_directory(killed);
  for (const char* name : {"sublet.db", "sublet.db-wal"})
    std::filesystem::copy(database.state->path() / name, killed / name);
  REQUIRE(std::filesystem::file_size(killed / "sublet.db-wal") > 0);
  const auto store = Store::open(killed / "sublet.db").value();
  REQUIRE(std::filesystem::file_size(killed / "sublet.db-wal") == 0);
  REQUIRE(store->load()->functions.size() == 1);
}

TEST_CASE("the state of an older manager is taken over") {
  Database database;
  Batch batch;
  batch.rows.leases = {ended_lease(1, "t")};
  REQUIRE(database.write(batch).ok());
  database.store.reset();
  const bool oldest = GENERATE(true, false);
  execute(database, "ALTER TABLE leases DROP COLUMN prefer; ALTER TABLE leases DROP COLUMN forbid");
  if (oldest) execute(database, "ALTER TABLE leases DROP COLUMN lent");
  execute(database, oldest ? "PRAGMA user_version=1" : "PRAGMA user_version=2");
  database.reopen();
  batch.rows.leases.push_back(ended_lease(2, "t"));
  batch.rows.leases[1].lent = {{"n", "boot"}};
  batch.usage = {used(1, 1, 5, 0, {"anybody", ""}), used(2, 2, 6, 0, {"anybody", ""}), used(3, 2, 7)};
  REQUIRE(database.write(batch).ok());
  REQUIRE(database.usage(manager::UsageQuery::By::tenant).at(0).calls == (oldest ? 12 : 7));
  database.reopen();
  REQUIRE(database.store->load()->saved.leases.size() == 2);
}
