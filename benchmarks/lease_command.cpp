#include <algorithm>
#include <cstdio>
#include <sstream>

#include "benchmarks/command.hpp"
#include "benchmarks/lease.hpp"

namespace sublet::bench {
namespace {

constexpr std::uint64_t clients_max = 1000;
constexpr std::uint64_t rounds_max = 1000;
constexpr std::uint64_t milliseconds_max = 600'000;
constexpr std::uint64_t nodes_max = 10'000;
constexpr std::uint64_t workers_max = 1024;
constexpr std::uint64_t birth_ms_max = 10'000;
constexpr double refused_percent_max = 1;

void check(const LeaseOptions& options) {
  for (const unsigned clients : options.clients) check_range("--clients", clients, 1, clients_max);
  check_range("--rounds", options.rounds, 1, rounds_max);
  check_range("--ms", options.milliseconds, 1, milliseconds_max);
  check_range("--nodes", options.nodes, 1, nodes_max);
  check_range("--workers", options.workers, 1, workers_max);
  check_range("--birth-ms", options.birth_ms, 0, birth_ms_max);
  if (!options.manager.empty() && !options.state_dir.empty())
    throw Misuse("--state-dir is of the manager that is started: leave it out with --manager");
  if (options.manager.empty() && options.manager_pid != 0)
    throw Misuse("--manager-pid is of a running manager: give --manager too");
}

void print(const LeaseOptions& options, const LeaseReport& report) {
  std::printf("one worker a lease; %u simulated nodes with %u ready workers each; %u rounds of %u ms\n",
              options.nodes, options.workers, options.rounds, options.milliseconds);
  if (!report.state_on.empty()) std::printf("the manager's state lies on %s\n", report.state_on.c_str());
  std::printf("%8s %10s %17s %11s %10s %10s %11s %11s %8s %8s\n", "clients", "grants/s", "quartiles",
              "releases/s", "grant p50", "p99 us", "release p50", "p99 us", "manager", "bench");
  for (const LeaseFigures& one : report.figures) {
    std::printf("%8u %10.0f %8.0f-%-8.0f %11.0f %10.0f %10.0f %11.0f %11.0f %7.0f%% %7.0f%%\n", one.clients,
                one.grants_per_second, one.grants_low, one.grants_high, one.releases_per_second,
                one.grant_p50_us, one.grant_p99_us, one.release_p50_us, one.release_p99_us,
                100 * one.manager_cpu, 100 * one.bench_cpu);
  }
  const auto refused =
      std::find_if(report.figures.begin(), report.figures.end(),
                   [](const LeaseFigures& one) { return one.refused_percent > refused_percent_max; });
  if (refused != report.figures.end()) {
    std::printf("with %u clients %.1f %% of the requests found no ready worker: raise --nodes or --workers\n",
                refused->clients, refused->refused_percent);
  }
}

std::string json_of(const LeaseOptions& options, const LeaseReport& report) {
  std::ostringstream text;
  text << R"({"benchmark": "lease", "nodes": )" << options.nodes << R"(, "workers": )" << options.workers
       << R"(, "rounds": )" << options.rounds << R"(, "ms": )" << options.milliseconds << R"(, "state_on": ")"
       << report.state_on << R"(", "figures": [)";
  const char* separator = "\n";
  for (const LeaseFigures& one : report.figures) {
    text << separator << R"(  {"clients": )" << one.clients        //
         << R"(, "grants_per_second": )" << one.grants_per_second  //
         << R"(, "grants_quartiles": [)" << one.grants_low << ", " << one.grants_high << "]"
         << R"(, "releases_per_second": )" << one.releases_per_second  //
         << R"(, "grant_p50_us": )" << one.grant_p50_us                //
         << R"(, "grant_p99_us": )" << one.grant_p99_us                //
         << R"(, "release_p50_us": )" << one.release_p50_us            //
         << R"(, "release_p99_us": )" << one.release_p99_us            //
         << R"(, "refused_percent": )" << one.refused_percent          //
         << R"(, "manager_cpu": )" << one.manager_cpu                  //
         << R"(, "bench_cpu": )" << one.bench_cpu << "}";
    separator = ",\n";
  }
  text << "\n]}\n";
  return text.str();
}

}  // namespace

int run_lease(int argc, char** argv) {
  LeaseOptions lease;
  std::string json;
  cxxopts::Options options(
      "sublet-bench lease",
      "Measures grants and releases against one manager with durable state; the nodes are "
      "simulated, their requests are not.");
  options.add_options()                                                                               //
      ("clients", "Clients at once, a list", cxxopts::value(lease.clients)->default_value("1,8,32"))  //
      ("rounds", "Rounds, each of all numbers of clients",
       cxxopts::value(lease.rounds)->default_value("7"))  //
      ("ms", "Milliseconds of each measurement",
       cxxopts::value(lease.milliseconds)->default_value("1000"))                               //
      ("nodes", "Simulated nodes", cxxopts::value(lease.nodes)->default_value("64"))            //
      ("workers", "Ready workers of each", cxxopts::value(lease.workers)->default_value("64"))  //
      ("birth-ms", "From a worker's end to its successor's heartbeat",
       cxxopts::value(lease.birth_ms)->default_value("20"))  //
      ("state-dir", "The manager's, kept (default: a temporary one below /var/tmp, removed)",
       cxxopts::value(lease.state_dir), "PATH")                                                    //
      ("manager", "Use this running one instead", cxxopts::value(lease.manager), "URL")            //
      ("manager-pid", "Its process, for its CPU share", cxxopts::value(lease.manager_pid), "PID")  //
      ("json", "Write the figures to this file as well", cxxopts::value(json), "FILE");
  if (!parse(options, argc, argv)) return 0;
  check(lease);
  const LeaseReport report = measure_leases(lease);
  print(lease, report);
  write_file(json, json_of(lease, report));
  return 0;
}

}  // namespace sublet::bench
