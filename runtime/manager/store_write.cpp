#include <algorithm>
#include <set>

#include "runtime/base/limits.hpp"
#include "runtime/manager/store_impl.hpp"

namespace sublet::manager {
namespace {

using sqlite::Statement;

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ",") + name;
  return text;
}

/// "node:worker,...", and where it replaced one "node:worker:node:worker".
std::string to_text(const std::vector<lease::PlaceRow>& places) {
  std::string text;
  const auto add = [&](const lease::HeldKey& key) {
    text += std::to_string(key.first) + ":" + std::to_string(key.second);
  };
  for (const lease::PlaceRow& place : places) {
    if (!text.empty()) text += ",";
    add(place.worker);
    if (place.before == lease::HeldKey()) continue;
    text += ":";
    add(place.before);
  }
  return text;
}

std::string to_text(const std::map<std::string, std::string>& endpoints) {
  std::string text;
  for (const auto& [name, address] : endpoints) text.append(name).append("=").append(address).append("\n");
  return text;
}

std::string name_mark(const lease::Lender& lender) {
  return "|n:" + lender.name + "|";
}

/// Of a machine that says what it is.
std::string machine_mark(const lease::Lender& lender) {
  return "|m:" + lender.machine + "|";
}

/// Marks to be searched for: names have no '|'.
std::string to_text(const std::vector<lease::Lender>& lenders) {
  std::string text;
  for (const lease::Lender& lender : lenders) {
    text += name_mark(lender);
    if (!lender.machine.empty()) text += machine_mark(lender);
  }
  return text;
}

constexpr const char* node_sql =
    "INSERT INTO nodes VALUES(?,?,?,?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET name=excluded.name";
constexpr const char* lease_sql =
    "INSERT INTO leases VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET "
    "ttl_ms=excluded.ttl_ms, expiry_ns=excluded.expiry_ns, node_lost=excluded.node_lost, "
    "workers_used=excluded.workers_used, lease_ns=excluded.lease_ns, places=excluded.places, "
    "reason=excluded.reason, ended_ns=excluded.ended_ns, lent=lent||excluded.lent";
constexpr const char* held_sql = "INSERT OR REPLACE INTO held VALUES(?,?,?,?,?,?,?,?,?,?)";
// The greatest of what was said: said again, late or out of order it changes nothing. A lease has no more
// accounts than it had workers, and only of nodes that have lent it one.
constexpr const char* usage_sql =
    "INSERT INTO usage SELECT ?1,?2,?3,?4,?5,?6 WHERE EXISTS(SELECT 1 FROM leases WHERE id=?2 AND "
    "(lent IS NULL OR instr(lent,?7) OR instr(lent,?8)) AND workers_used>(SELECT count(*) FROM usage WHERE "
    "lease=?2 AND id<>?1)) "
    "ON CONFLICT(id) DO UPDATE SET calls_started=max(calls_started,excluded.calls_started), "
    "calls=max(calls,excluded.calls), execution_ns=max(execution_ns,excluded.execution_ns), "
    "hot_ns=max(hot_ns,excluded.hot_ns) WHERE lease=excluded.lease";

// Never lower: a number that was given out is not used again, whatever became of its function.
constexpr const char* next_function_sql =
    "INSERT INTO meta VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value=max(value,excluded.value)";

/// Sums stay below what SQLite has for whole numbers: a sum beyond would be an error.
std::string sum(const std::string& what) {
  return "CAST(min(total(" + what + "),9.2e18) AS INTEGER)";
}

std::string added(const std::string& column) {
  return column + "=CAST(min(" + column + "+excluded." + column + ",9.2e18) AS INTEGER)";
}

std::string fold_sql() {
  std::string update;
  for (const char* column : {"leases", "workers", "calls_started", "calls", "execution_ns", "hot_ns",
                             "lease_ns", "core_ns", "gpu_ns"}) {
    update += (update.empty() ? "" : ", ") + added(column);
  }
  return R"(
    SAVEPOINT folding_now;
    CREATE TEMP TABLE IF NOT EXISTS folding(id INTEGER PRIMARY KEY);
    DELETE FROM folding;
    INSERT INTO folding SELECT id FROM leases WHERE reason<>'' AND id NOT IN (SELECT lease FROM held)
      ORDER BY id LIMIT )" +
         std::to_string(limits::usage_fold_max) + R"(;
    INSERT INTO totals SELECT tenant, function_name, count(*), )" +
         sum("workers_used") + "," + sum("started") + "," + sum("done") + "," + sum("execution") + "," +
         sum("hot") + "," + sum("lease_ns") + "," + sum("1.0*lease_ns*cores") + "," +
         sum("1.0*lease_ns*gpus") + R"(
      FROM (SELECT leases.*, )" +
         sum("calls_started") + " AS started, " + sum("calls") + " AS done, " + sum("usage.execution_ns") +
         " AS execution, " + sum("usage.hot_ns") + R"( AS hot
            FROM folding JOIN leases USING(id) LEFT JOIN usage ON usage.lease=leases.id GROUP BY leases.id)
      WHERE true GROUP BY tenant, function_name
      ON CONFLICT(tenant, function_name) DO UPDATE SET )" +
         update + R"(;
    DELETE FROM usage WHERE lease IN (SELECT id FROM folding);
    DELETE FROM leases WHERE id IN (SELECT id FROM folding);)";
}

}  // namespace

void Batch::append(Batch&& later) {
  const auto move = [](auto& into, auto& from) {
    into.insert(into.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  };
  // A key that went and came again, or the other way round, must end as it was last: what is gone is
  // deleted before rows are written, so it only goes when no later row brings it back.
  const std::set<lease::HeldKey> gone(later.rows.held_gone.begin(), later.rows.held_gone.end());
  std::erase_if(rows.held, [&](const lease::HeldRow& row) { return gone.contains(row.key); });
  std::erase_if(rows.nodes, [&](const lease::NodeRow& row) {
    return std::find(later.rows.nodes_gone.begin(), later.rows.nodes_gone.end(), row.id) !=
           later.rows.nodes_gone.end();
  });
  std::erase_if(functions, [&](const api::FunctionInfo& function) {
    return std::find(later.functions_gone.begin(), later.functions_gone.end(), function.id) !=
           later.functions_gone.end();
  });
  move(rows.nodes, later.rows.nodes);
  move(rows.nodes_gone, later.rows.nodes_gone);
  move(rows.orders, later.rows.orders);
  move(rows.leases, later.rows.leases);
  move(rows.held, later.rows.held);
  move(rows.held_gone, later.rows.held_gone);
  move(functions, later.functions);
  move(functions_gone, later.functions_gone);
  move(usage, later.usage);
  now = later.now;
  first_id = later.first_id;
}

Result<std::unique_ptr<Writer>> Writer::create(sqlite3* database) {
  auto writer = std::unique_ptr<Writer>(new Writer(database));
  const std::pair<Statement*, std::string_view> statements[] = {
      {&writer->begin_, "BEGIN IMMEDIATE"},
      {&writer->commit_, "COMMIT"},
      {&writer->node_, node_sql},
      {&writer->node_gone_, "DELETE FROM nodes WHERE id=?"},
      {&writer->order_, "INSERT OR REPLACE INTO orders VALUES(?,?,?)"},
      {&writer->order_gone_, "DELETE FROM orders WHERE name=?"},
      {&writer->lease_, lease_sql},
      {&writer->held_, held_sql},
      {&writer->held_gone_, "DELETE FROM held WHERE node=? AND worker=?"},
      {&writer->function_, "INSERT OR REPLACE INTO functions VALUES(?,?,?,?,?)"},
      {&writer->function_gone_, "DELETE FROM functions WHERE id=?"},
      {&writer->next_function_, next_function_sql},
      {&writer->usage_, usage_sql},
      {&writer->meta_, "INSERT OR REPLACE INTO meta VALUES(?,?)"},
  };
  for (const auto& [statement, sql] : statements) {
    Result<Statement> prepared = Statement::prepare(database, sql);
    if (!prepared) return prepared.error();
    *statement = *std::move(prepared);
  }
  Result<Statement> ended = Statement::prepare(database, "SELECT count(*) FROM leases WHERE reason<>''");
  if (!ended) return ended.error();
  if (const Result<bool> row = ended->step(); !row) return row.error();
  writer->ended_ = ended->number(0);
  return writer;
}

Status Writer::write(const Batch& batch) {
  if (Status begun = begin_.bind().run(); !begun) return begun;
  const std::uint64_t ended = ended_;
  Status written = write_all(batch);
  if (written) written = commit_.bind().run();
  if (written) return written;
  ended_ = ended;
  // After a full disk SQLite may have rolled back by itself.
  if (sqlite3_get_autocommit(database_) == 0) static_cast<void>(sqlite::execute(database_, "ROLLBACK"));
  return written;
}

Status Writer::write_all(const Batch& batch) {
  if (Status good = write_nodes(batch.rows); !good) return good;
  if (Status good = write_leases(batch.rows); !good) return good;
  if (Status good = write_held(batch.rows); !good) return good;
  if (Status good = write_functions(batch); !good) return good;
  if (Status good = write_usage(batch); !good) return good;
  if (Status good = fold_oldest(); !good) return good;
  if (Status good = meta_.bind(std::string(meta_last), lease::to_ns(batch.now)).run(); !good) return good;
  return meta_.bind(std::string(meta_next_id), batch.first_id).run();
}

Status Writer::write_nodes(const lease::Rows& rows) {
  for (const lease::NodeId id : rows.nodes_gone) {
    if (Status good = node_gone_.bind(id).run(); !good) return good;
  }
  for (const lease::NodeRow& row : rows.nodes) {
    const api::NodeRegistration& about = row.about;
    Status good =
        node_
            .bind(row.id, about.name, about.machine, about.cores, about.memory_bytes,
                  about.worker_region_bytes, about.version, about.gpus, std::span<const std::byte>(row.key))
            .run();
    if (!good) return good;
  }
  for (const lease::OrderRow& row : rows.orders) {
    Status good = row.cordoned || row.drained ? order_.bind(row.name, row.cordoned, row.drained).run()
                                              : order_gone_.bind(row.name).run();
    if (!good) return good;
  }
  return {};
}

Status Writer::write_leases(const lease::Rows& rows) {
  for (const lease::LeaseRow& row : rows.leases) {
    const api::LeaseRequest& request = row.request;
    const std::string require = joined(request.transports.require);
    const std::string prefer = joined(request.transports.prefer);
    const std::string forbid = joined(request.transports.forbid);
    const std::string places = to_text(row.places);
    const std::string lent = to_text(row.lent);
    Status good = lease_
                      .bind(row.id, request.tenant, row.function, row.function_name, request.workers,
                            request.cores, request.memory_bytes, request.gpus, request.ttl_ms, require,
                            request.placement, lease::to_ns(row.granted), lease::to_ns(row.expiry),
                            row.node_lost, row.workers_used, std::int64_t{row.lease_time.count()}, places,
                            row.reason, lease::to_ns(row.ended), lent, prefer, forbid)
                      .run();
    if (!good) return good;
    ended_ += row.reason.empty() ? 0 : 1;
  }
  return {};
}

Status Writer::write_held(const lease::Rows& rows) {
  for (const auto& [node, worker] : rows.held_gone) {
    if (Status good = held_gone_.bind(node, worker).run(); !good) return good;
  }
  for (const lease::HeldRow& row : rows.held) {
    const std::string endpoints = to_text(row.endpoints);
    Status good = held_
                      .bind(row.key.first, row.key.second, row.lease, row.cores, row.memory_bytes, row.gpus,
                            row.ending, row.loaded, lease::to_ns(row.since), endpoints)
                      .run();
    if (!good) return good;
  }
  return {};
}

Status Writer::write_functions(const Batch& batch) {
  const auto used = [this](std::uint32_t id) {
    return next_function_.bind(std::string(meta_next_function), std::uint64_t{id} + 1).run();
  };
  for (const std::uint32_t id : batch.functions_gone) {
    if (Status good = function_gone_.bind(id).run(); !good) return good;
    if (Status good = used(id); !good) return good;
  }
  for (const api::FunctionInfo& function : batch.functions) {
    Status good =
        function_.bind(function.id, function.name, function.version, function.digest, function.bytes).run();
    if (!good) return good;
    if (good = used(function.id); !good) return good;
  }
  return {};
}

Status Writer::write_usage(const Batch& batch) {
  for (const auto& [from, used] : batch.usage) {
    const std::string name = name_mark(from);
    const std::string machine = machine_mark(from);
    Status good = usage_
                      .bind(used.id, used.lease, used.calls_started, used.calls, used.execution_ns,
                            used.hot_ns, name, machine)
                      .run();
    if (!good) return good;
  }
  return {};
}

/// The totals take over what the oldest ended leases have used, so that nothing is lost and the file stays
/// bounded.
Status Writer::fold_oldest() {
  if (ended_ <= ended_max_) return {};
  Status good = sqlite::execute(database_, fold_sql());
  if (good) {
    ended_ -= std::min<std::uint64_t>(ended_, static_cast<std::uint64_t>(sqlite3_changes(database_)));
    return sqlite::execute(database_, "RELEASE folding_now");
  }
  // What cannot be folded stays as it is; the transaction is about other things.
  ended_max_ = ended_ + limits::usage_fold_max;
  return sqlite::execute(database_, "ROLLBACK TO folding_now; RELEASE folding_now");
}

}  // namespace sublet::manager
