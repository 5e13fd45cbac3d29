#include "runtime/manager/metrics.hpp"

#include <algorithm>
#include <cstdio>

namespace sublet::manager {
namespace {

using Labelled = std::map<std::string, std::uint64_t>;  // Label text to value; "" has none.

void family(std::string& out, const char* metric, const char* type, const char* help,
            const Labelled& samples) {
  out += std::string("# HELP ") + metric + " " + help + "\n# TYPE " + metric + " " + type + "\n";
  for (const auto& [labels, value] : samples) {
    out +=
        metric + (labels.empty() ? std::string() : "{" + labels + "}") + " " + std::to_string(value) + "\n";
  }
}

std::string label(const char* key, const std::string& value) {
  return std::string(key) + "=\"" + value + "\"";
}

std::string seconds(std::uint64_t microseconds) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.12g", static_cast<double>(microseconds) / 1e6);
  return text.data();
}

void nodes_and_workers(std::string& out, const lease::LeaseTable& table) {
  Labelled nodes;
  for (const char* state : {"up", "cordoned", "draining", "probation", "lost"})
    nodes[label("state", state)] = 0;
  Labelled workers{{label("state", "ready"), 0},
                   {label("state", "granted"), 0},
                   {label("state", "serving"), 0},
                   {label("state", "ending"), 0}};
  constexpr std::array names{"ready", "granted", "serving", "ending"};
  Labelled cores{{label("state", "total"), 0}, {label("state", "leased"), 0}};
  for (const auto& [id, node] : table.state()) {
    ++nodes[label("state", lease::state_name(node))];
    for (std::size_t i = 0; i < names.size(); ++i) workers[label("state", names.at(i))] += node.count.at(i);
    if (node.lost) continue;
    cores[label("state", "total")] += node.about.cores;
    cores[label("state", "leased")] += node.held.cores;
  }
  family(out, "sublet_nodes", "gauge", "Registered nodes by state.", nodes);
  family(out, "sublet_workers", "gauge", "Workers of the nodes by state.", workers);
  Labelled connected;
  for (const auto& [transport, count] : table.connected()) connected[label("transport", transport)] = count;
  family(out, "sublet_connections", "gauge", "Workers that have their client, by its transport.", connected);
  family(out, "sublet_cores", "gauge", "Cores of the nodes that are not lost, and those that leases hold.",
         cores);
}

/// What the nodes' owner wants of them.
void ordered_nodes(std::string& out, const lease::LeaseTable& table) {
  Labelled nodes{{label("order", "cordon"), 0}, {label("order", "end"), 0}, {label("order", "over"), 0}};
  for (const auto& [id, node] : table.state()) {
    if (node.lost || node.site.why.empty()) continue;
    const bool cordon = node.site.cordon && !node.site.end;
    ++nodes[label("order", cordon ? "cordon" : node.closed ? "over" : "end")];
  }
  family(out, "sublet_nodes_ordered", "gauge",
         "Nodes that their owner wants: none new there, back at a time, or back now.", nodes);
}

}  // namespace

void Metrics::count_request(const std::string& method, const std::string& route, unsigned status) {
  ++requests_[{route.empty() ? "other" : method, route.empty() ? "none" : route, status}];
}

void Metrics::time_grant(std::chrono::microseconds took) {
  const auto value = static_cast<std::uint64_t>(std::max<std::int64_t>(took.count(), 0));
  const auto at = std::lower_bound(bounds_us.begin(), bounds_us.end(), value);
  ++grants_[static_cast<std::size_t>(at - bounds_us.begin())];
  grants_us_ += value;
}

void Metrics::count_write(std::chrono::microseconds took, bool written) {
  ++(written ? writes_ : writes_failed_);
  writes_us_ += static_cast<std::uint64_t>(std::max<std::int64_t>(took.count(), 0));
}

void Metrics::slurm(std::string& out, const lease::LeaseTable& table,
                    std::optional<std::chrono::milliseconds> slurm_age) const {
  ordered_nodes(out, table);
  family(out, "sublet_slurm_looks_total", "counter", "Looks at what Slurm wants, by result.",
         {{label("result", "seen"), slurm_looks_}, {label("result", "failed"), slurm_looks_failed_}});
  if (slurm_age) {
    family(out, "sublet_slurm_age_seconds", "gauge", "Age of what Slurm last said.",
           {{"", static_cast<std::uint64_t>(std::chrono::ceil<std::chrono::seconds>(*slurm_age).count())}});
  }
}

std::string Metrics::text(const lease::LeaseTable& table, std::size_t waiting, std::size_t functions,
                          bool writable, std::optional<std::chrono::milliseconds> slurm_age) const {
  std::string out;
  const lease::Counts& counts = table.counts();
  nodes_and_workers(out, table);
  slurm(out, table, slurm_age);
  std::uint64_t ended = 0;
  Labelled endings;
  for (const auto& [reason, count] : counts.ended) {
    endings[label("reason", reason)] = count;
    ended += count;
  }
  family(out, "sublet_leases", "gauge", "Leases by state; ended ones since the start.",
         {{label("state", "active"), table.active()}, {label("state", "ended"), ended}});
  family(out, "sublet_lease_waiters", "gauge", "Requests that wait for capacity.", {{"", waiting}});
  family(out, "sublet_functions", "gauge", "Deployed functions.", {{"", functions}});
  Labelled connections;
  for (const auto& [transport, count] : counts.connections)
    connections[label("transport", transport)] = count;
  family(out, "sublet_connections_total", "counter", "Clients that came to their workers, by transport.",
         connections);
  family(out, "sublet_grants_total", "counter", "Leases granted.", {{"", counts.granted}});
  family(out, "sublet_renewals_total", "counter", "Leases renewed.", {{"", counts.renewed}});
  family(out, "sublet_replacements_total", "counter", "Workers replaced under their lease.",
         {{"", counts.replaced}});
  family(out, "sublet_lease_ends_total", "counter", "Leases ended, by reason.", endings);
  const auto expired = counts.ended.find("expired");
  family(out, "sublet_expirations_total", "counter", "Leases ended by time.",
         {{"", expired != counts.ended.end() ? expired->second : 0}});
  family(out, "sublet_nodes_lost_total", "counter", "Nodes that fell silent or registered again.",
         {{"", counts.nodes_lost}});
  family(out, "sublet_workers_lost_total", "counter", "Workers lost to active leases.",
         {{"", counts.workers_lost}});
  family(out, "sublet_workers_taken_back_total", "counter",
         "Workers taken from active leases because their node's time was over.",
         {{"", counts.workers_taken_back}});
  family(out, "sublet_state_writable", "gauge", "1 while the state can be written.",
         {{"", writable ? 1 : 0}});
  family(out, "sublet_state_writes_total", "counter", "Transactions by result.",
         {{label("result", "written"), writes_}, {label("result", "failed"), writes_failed_}});
  out +=
      "# HELP sublet_state_write_seconds_total Time that transactions took.\n# TYPE "
      "sublet_state_write_seconds_total counter\nsublet_state_write_seconds_total " +
      seconds(writes_us_) + "\n";
  Labelled refusals;
  for (const auto& [code, count] : refusals_) refusals[label("error", code)] = count;
  family(out, "sublet_refusals_total", "counter", "Lease requests and replacements refused, by error.",
         refusals);
  Labelled requests;
  for (const auto& [key, count] : requests_) {
    const auto& [method, route, status] = key;
    requests[label("method", method) + "," + label("route", route) + "," +
             label("status", std::to_string(status))] = count;
  }
  family(out, "sublet_http_requests_total", "counter", "Answers by route and status.", requests);
  out +=
      "# HELP sublet_grant_seconds From a lease request's arrival to its grant.\n# TYPE sublet_grant_seconds "
      "histogram\n";
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < grants_.size(); ++i) {
    below += grants_[i];
    const std::string bound = i < bounds_us.size() ? seconds(bounds_us[i]) : "+Inf";
    out += "sublet_grant_seconds_bucket{le=\"" + bound + "\"} " + std::to_string(below) + "\n";
  }
  out += "sublet_grant_seconds_sum " + seconds(grants_us_) + "\n";
  out += "sublet_grant_seconds_count " + std::to_string(below) + "\n";
  return out;
}

}  // namespace sublet::manager
