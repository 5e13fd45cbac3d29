// Who has used how much: what the database says, with the time that active leases have had until now.

#include "runtime/base/limits.hpp"
#include "runtime/manager/store_impl.hpp"

namespace sublet::manager {
namespace {

using By = UsageQuery::By;

// One row a lease. ?1: now. ?2: tenant. ?3: function. ?4: after. Empty texts: all.
constexpr const char* leases_sql = R"(
  SELECT leases.id AS lease, tenant, function_name, reason, workers_used AS workers,
         coalesce(u.started,0) AS started, coalesce(u.done,0) AS done,
         coalesce(u.execution,0) AS execution, coalesce(u.hot,0) AS hot,
         lease_ns + CAST(coalesce(h.time,0) AS INTEGER) AS time, cores, gpus
  FROM leases LEFT JOIN (
    SELECT lease, total(calls_started) AS started, total(calls) AS done, total(execution_ns) AS execution,
           total(hot_ns) AS hot FROM usage WHERE lease > ?4 GROUP BY lease) AS u ON u.lease=leases.id
  LEFT JOIN (
    SELECT held.lease AS lease, total(max(0, min(?1, active.expiry_ns) - since_ns)) AS time
    FROM held JOIN leases AS active ON active.id=held.lease AND active.reason='' AND NOT ending
    GROUP BY held.lease) AS h ON h.lease=leases.id
  WHERE (?2='' OR tenant=?2) AND (?3='' OR function_name=?3 OR
         (instr(?3,'@')=0 AND substr(function_name,1,length(?3)+1)=?3||'@')) AND leases.id > ?4)";

constexpr const char* totals_sql = R"(
  SELECT 0, tenant, function_name, '', workers, calls_started, calls, execution_ns, hot_ns, lease_ns,
         leases, core_ns, gpu_ns FROM totals
  WHERE (?2='' OR tenant=?2) AND (?3='' OR function_name=?3 OR
         (instr(?3,'@')=0 AND substr(function_name,1,length(?3)+1)=?3||'@')) AND ?1>=0 AND ?4>=0)";

std::string sql_for(By by) {
  const std::string leases = leases_sql;
  switch (by) {
    case By::lease:
      return "SELECT lease, 0, tenant, function_name, CASE reason WHEN '' THEN 'active' ELSE reason END, 1, "
             "workers, started, done, execution, hot, time, time*cores, time*gpus FROM (" +
             leases + ") ORDER BY lease LIMIT ?5";
    case By::worker:
      return "SELECT usage.lease, usage.id, tenant, function_name, '', 1, 1, calls_started, calls, "
             "execution_ns, hot_ns, 0, 0, 0 FROM usage JOIN (" +
             leases + ") AS l ON l.lease=usage.lease ORDER BY usage.lease, usage.id LIMIT ?5";
    default:
      break;
  }
  const std::string key = by == By::tenant ? "tenant" : "function_name";
  std::string sums;  // As floating point: a sum of whole numbers beyond 2^63 would be an error.
  for (const char* what : {"n", "workers", "started", "done", "execution", "hot", "time", "core", "gpu"})
    sums.append(", total(").append(what).append(")");
  return "SELECT 0, 0, " + std::string(by == By::tenant ? "tenant, ''" : "'', function_name") + ", ''" +
         sums +
         " FROM (SELECT lease, tenant, function_name, workers, started, done, execution, hot, time, "
         "1 AS n, time*cores AS core, time*gpus AS gpu FROM (" +
         leases +
         ") UNION ALL SELECT 0, tenant, function_name, workers, calls_started, calls, execution_ns, hot_ns, "
         "lease_ns, leases, core_ns, gpu_ns FROM (" +
         std::string(totals_sql) + ")) GROUP BY " + key + " ORDER BY " + key + " LIMIT ?5";
}

/// The next page begins with the lease after the last: so none is cut, unless it alone fills a whole page.
Status cut_to_whole_leases(std::vector<api::UsageRow>& rows, std::uint32_t limit) {
  if (rows.size() <= limit) return {};
  const std::uint64_t cut = rows.back().lease;
  if (rows.front().lease != cut) {
    while (rows.back().lease == cut) rows.pop_back();
    return {};
  }
  if (limit < limits::usage_rows_max) {
    return Error(Errc::invalid_argument, "lease " + std::to_string(cut) + " has more than " +
                                             std::to_string(limit) + " workers: ask with a greater limit");
  }
  rows.pop_back();
  return {};
}

}  // namespace

Result<std::vector<api::UsageRow>> Store::usage(const UsageQuery& query, lease::Time now) {
  Result<sqlite::Statement> select = sqlite::Statement::prepare(impl_->reader.get(), sql_for(query.by));
  if (!select) return select.error();
  const std::uint32_t limit = query.limit + (query.by == By::worker ? 1 : 0);  // To see whether one is cut.
  select->bind(lease::to_ns(now), query.tenant, query.function, query.after, limit);
  std::vector<api::UsageRow> rows;
  for (;;) {
    const Result<bool> row = select->step();
    if (!row) return row.error();
    if (!*row) break;
    rows.push_back({.lease = select->number(0),
                    .worker = select->number(1),
                    .tenant = select->text(2),
                    .function_name = select->text(3),
                    .state = select->text(4),
                    .leases = select->number(5),
                    .workers = select->number(6),
                    .calls_started = select->number(7),
                    .calls = select->number(8),
                    .execution_ns = select->number(9),
                    .hot_ns = select->number(10),
                    .lease_ns = select->number(11),
                    .core_ns = select->number(12),
                    .gpu_ns = select->number(13)});
  }
  if (query.by != By::worker) return rows;
  if (Status whole = cut_to_whole_leases(rows, query.limit); !whole) return whole.error();
  return rows;
}

}  // namespace sublet::manager
