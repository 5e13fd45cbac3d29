// nodes, leases, functions, tenants and usage: what the manager knows.
#include <algorithm>
#include <iostream>

#include "client/cli/manager.hpp"
#include "client/cli/rows.hpp"
#include "client/cli/units.hpp"
#include "client/manager_client.hpp"

namespace sublet::cli {

namespace {

/// Prints the answer as it is, or the table that `rows` makes of it.
template <typename Body, typename Rows>
int show(const Arguments& given, Manager& manager, const std::string& body, Rows rows, const char* none) {
  if (given.json()) {
    std::cout << body << '\n';
    return exit_ok;
  }
  const Table table = rows(manager.parse<Body>(body));
  if (table.rows() == 0) {
    std::cout << none << '\n';
  } else {
    table.print(std::cout, palette_for_output(!given.has("no-color")));
  }
  return exit_ok;
}

/// The most that the manager puts into one answer.
constexpr std::uint64_t rows_max = 10'000;

void tell_if_cut(std::uint64_t rows, std::uint64_t limit, const char* more) {
  if (rows >= limit)
    std::cerr << "sublet: these are " << rows << " rows, and there may be more: " << more << '\n';
}

Cell usage_name(const api::UsageRow& row, const std::string& by) {
  if (by == "lease") return std::to_string(row.lease);
  if (by == "worker") return std::to_string(row.worker);
  return by == "tenant" ? row.tenant : row.function_name;
}

Table usage_rows(const api::Usage& usage, const std::string& by) {
  const bool single = by == "lease" || by == "worker";
  std::vector<std::string> headings{by == "lease"    ? ">LEASE"
                                    : by == "worker" ? ">WORKER"
                                    : by == "tenant" ? "TENANT"
                                                     : "FUNCTION"};
  if (by == "worker") headings.emplace_back(">LEASE");
  if (single) headings.insert(headings.end(), {"TENANT", "FUNCTION"});
  if (by == "lease") headings.emplace_back("STATE");
  if (!single) headings.emplace_back(">LEASES");
  if (by != "worker") headings.emplace_back(">WORKERS");
  headings.insert(headings.end(), {">CALLS", ">EXECUTION", ">POLLING"});
  if (by != "worker") headings.insert(headings.end(), {">LEASED", ">CORES", ">GPUS"});
  Table table(headings);
  for (const api::UsageRow& row : usage.rows) {
    std::vector<Cell> cells{usage_name(row, by)};
    if (by == "worker") cells.emplace_back(std::to_string(row.lease));
    if (single) cells.insert(cells.end(), {Cell(row.tenant), Cell(row.function_name)});
    if (by == "lease") cells.emplace_back(row.state);
    if (!single) cells.emplace_back(std::to_string(row.leases));
    if (by != "worker") cells.emplace_back(std::to_string(row.workers));
    cells.emplace_back(std::to_string(row.calls));
    cells.emplace_back(in_time_ns(row.execution_ns));
    cells.emplace_back(in_time_ns(row.hot_ns));
    if (by != "worker") {
      cells.emplace_back(in_time_ns(row.lease_ns));
      cells.emplace_back(in_time_ns(row.core_ns));
      cells.emplace_back(in_time_ns(row.gpu_ns));
    }
    table.add(std::move(cells));
  }
  return table;
}

}  // namespace

int show_nodes(const Arguments& given) {
  Manager manager(given);
  return show<api::Nodes>(given, manager, manager.get("/v1/nodes"), node_rows,
                          "no nodes; start sublet-agent on those that shall lend");
}

int show_leases(const Arguments& given) {
  const std::uint64_t limit = given.number("limit", 1000, 1, rows_max);
  std::string path = "/v1/leases?limit=" + std::to_string(limit);
  if (!given.has("all")) path += "&state=active";
  if (given.has("tenant")) path += "&tenant=" + client::escape(given.text("tenant"));
  Manager manager(given);
  const std::uint64_t now = given.json() ? 0 : manager.time_ms();
  const auto rows = [&](const api::Leases& leases) {
    tell_if_cut(leases.leases.size(), limit, "--limit shows more");
    return lease_rows(leases, now);
  };
  return show<api::Leases>(given, manager, manager.get(path), rows,
                           given.has("all") ? "no leases" : "no active leases");
}

int show_functions(const Arguments& given) {
  Manager manager(given);
  const auto rows = [](const api::Functions& functions) {
    Table table({"FUNCTION", ">ID", ">SIZE", "SHA-256"});
    for (const api::FunctionInfo& function : functions.functions) {
      table.add({function.name + "@" + function.version, std::to_string(function.id),
                 in_bytes(function.bytes), function.digest});
    }
    return table;
  };
  return show<api::Functions>(given, manager, manager.get("/v1/functions"), rows,
                              "no functions; `sublet deploy NAME@VERSION FILE.so` brings one");
}

int show_tenants(const Arguments& given) {
  Manager manager(given);
  return show<api::Tenants>(given, manager, manager.get_newer("/v1/tenants"), tenant_rows,
                            "no tenant holds or waits for anything");
}

int show_usage(const Arguments& given) {
  const std::string by = given.text("by", "tenant");
  if (given.has("csv") && given.json()) throw Usage("--csv and --json exclude each other");
  const std::uint64_t limit = given.number("limit", rows_max, 1, rows_max);
  std::string path = "/v1/usage?by=" + by + "&format=" + (given.has("csv") ? "csv" : "json") +
                     "&limit=" + std::to_string(limit);
  if (given.has("after"))
    path += "&after=" + std::to_string(given.number("after", 0, 0, std::uint64_t{1} << 53));
  for (const char* const only : {"tenant", "function"}) {
    if (given.has(only)) path += std::string("&").append(only).append("=") + client::escape(given.text(only));
  }
  Manager manager(given);
  const char* const more = by == "lease" || by == "worker" ? "--after shows what comes behind the last lease"
                                                           : "--tenant and --function show single ones";
  const std::string body = manager.get_newer(path);
  if (given.has("csv")) {
    std::cout << body;
    const auto lines = static_cast<std::uint64_t>(std::count(body.begin(), body.end(), '\n'));
    tell_if_cut(lines - std::min<std::uint64_t>(lines, 1), limit, more);
    return exit_ok;
  }
  const auto rows = [&](const api::Usage& usage) {
    tell_if_cut(usage.rows.size(), limit, more);
    return usage_rows(usage, by);
  };
  return show<api::Usage>(given, manager, body, rows, "nothing has been used");
}

}  // namespace sublet::cli
