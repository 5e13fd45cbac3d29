#include "client/cli/rows.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "client/cli/units.hpp"

namespace sublet::cli {

namespace {

std::string of(std::uint64_t part, const std::string& whole) {
  return std::to_string(part) + " of " + whole;
}

std::string quota(std::uint32_t most) {
  return most == 0 ? "-" : std::to_string(most);
}

/// "2 verbs, 1 tcp", and how many of them by another transport than the lease prefers.
Cell reached_over(const api::LeaseInfo& lease) {
  std::map<std::string, std::size_t> by;
  std::size_t fallen = 0;
  for (const api::GrantedWorker& worker : lease.workers) {
    if (!worker.transport.empty()) ++by[worker.transport];
    if (!worker.fallback.empty()) ++fallen;
  }
  std::string text;
  for (const auto& [transport, workers] : by) {
    text += (text.empty() ? "" : ", ") + std::to_string(workers) + " " + transport;
  }
  if (text.empty()) return "-";
  if (fallen == 0) return text;
  return {text + " (" + std::to_string(fallen) + " not as preferred)", Style::warning};
}

}  // namespace

Style style_of_node(const std::string& state) {
  return state == "up" ? Style::good : state == "lost" ? Style::bad : Style::warning;
}

Table node_rows(const api::Nodes& nodes) {
  const bool gpus =
      std::any_of(nodes.nodes.begin(), nodes.nodes.end(), [](const auto& node) { return node.gpus > 0; });
  std::vector<std::string> headings{"NODE", ">ID", "STATE", ">CORES LEASED", ">MEMORY LEASED"};
  if (gpus) headings.emplace_back(">GPUS LEASED");
  headings.insert(headings.end(), {">READY", ">SERVING", ">HEARD", "VERSION"});
  const bool reasons =
      std::any_of(nodes.nodes.begin(), nodes.nodes.end(), [](const auto& node) { return !node.why.empty(); });
  if (reasons) headings.emplace_back("WHY");
  Table table(headings);
  for (const api::NodeInfo& node : nodes.nodes) {
    std::string state = node.state;
    if (node.state == "probation" && node.probation_ms > 0) state += " for " + in_time_ms(node.probation_ms);
    if (node.state == "up" && node.ends_in_ms > 0) state += " for " + in_time_ms(node.ends_in_ms);
    std::vector<Cell> row{node.name, std::to_string(node.node), Cell(state, style_of_node(node.state)),
                          of(node.cores_leased, std::to_string(node.cores)),
                          in_bytes(node.memory_leased) + " of " + in_bytes(node.memory_bytes)};
    if (gpus) row.emplace_back(of(node.gpus_leased, std::to_string(node.gpus)));
    row.emplace_back(std::to_string(node.workers_ready));
    row.emplace_back(std::to_string(node.workers_serving));
    row.emplace_back(in_time_ms(node.silent_ms) + " ago");
    row.emplace_back(node.version.empty() ? "-" : node.version);
    if (reasons) row.emplace_back(node.why.empty() ? "-" : node.why);
    table.add(std::move(row));
  }
  return table;
}

Table lease_rows(const api::Leases& leases, std::uint64_t now_ms) {
  Table table({">LEASE", "TENANT", "FUNCTION", "STATE", ">WORKERS", ">CORES", ">MEMORY", ">AGE",
               ">EXPIRES IN", "REACHED OVER", "NODES"});
  for (const api::LeaseInfo& lease : leases.leases) {
    const bool active = lease.state == "active";
    std::set<std::string> names;
    for (const api::GrantedWorker& worker : lease.workers) names.insert(worker.node_name);
    std::string nodes = names.empty() ? "-" : *names.begin();
    if (names.size() > 1) nodes += " and " + std::to_string(names.size() - 1) + " more";
    const std::uint64_t left = lease.expiry_ms > now_ms ? lease.expiry_ms - now_ms : 0;
    table.add({std::to_string(lease.lease), lease.tenant, lease.function_name,
               active ? Cell("active", Style::good) : Cell(lease.reason, Style::dim),
               std::to_string(lease.workers.size()), std::to_string(lease.cores),
               lease.memory_bytes == 0 ? "share" : in_bytes(lease.memory_bytes),
               ago(lease.granted_ms, active || lease.ended_ms == 0 ? now_ms : lease.ended_ms),
               active ? in_time_ms(left) : "-", reached_over(lease), nodes});
  }
  return table;
}

Table tenant_rows(const api::Tenants& tenants) {
  Table table({"TENANT", ">SHARE", ">CORES", ">AT MOST", ">LEASES", ">AT MOST", ">WAITING"});
  for (const api::TenantInfo& tenant : tenants.tenants) {
    table.add({tenant.tenant, std::to_string(tenant.share), std::to_string(tenant.cores),
               quota(tenant.cores_max), std::to_string(tenant.leases), quota(tenant.leases_max),
               Cell(std::to_string(tenant.waiting), tenant.waiting > 0 ? Style::warning : Style::plain)});
  }
  return table;
}

}  // namespace sublet::cli
