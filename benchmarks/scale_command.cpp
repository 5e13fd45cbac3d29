#include <cstdio>
#include <sstream>

#include "benchmarks/command.hpp"
#include "benchmarks/scale.hpp"

namespace sublet::bench {
namespace {

constexpr double mib = 1024.0 * 1024.0;

void check(const ScaleOptions& options) {
  check_range("--nodes", options.nodes, 1, 10'000);
  check_range("--leases", options.leases, 1, 1'000'000);
  check_range("--ttl", options.ttl_s, 2, 86'400);
  check_range("--seconds", options.seconds, 1, 3'600);
  check_range("--probes", options.probes, 1, 1'000);
}

void print(const char* when, const ScaleWindow& one) {
  std::printf("%s\n", when);
  std::printf("  manager             %8.1f %% of a core, RSS %.0f MiB, PSS %.0f MiB\n", 100 * one.manager_cpu,
              static_cast<double>(one.rss_bytes) / mib, static_cast<double>(one.pss_bytes) / mib);
  std::printf("  this program        %8.1f %% of a core\n", 100 * one.bench_cpu);
  std::printf("  heartbeats          %8.0f /s, p99 %.0f us\n", one.heartbeats_per_second,
              one.heartbeat_p99_us);
  std::printf("  renewals            %8.0f /s, p99 %.0f us\n", one.renewals_per_second, one.renewal_p99_us);
  std::printf("  grant               %8.0f us, p99 %.0f us, of %llu\n", one.grant_p50_us, one.grant_p99_us,
              static_cast<unsigned long long>(one.probes));
  std::printf("  release             %8.0f us, p99 %.0f us\n", one.release_p50_us, one.release_p99_us);
}

void print(const ScaleOptions& options, const ScaleReport& report) {
  if (report.nodes < options.nodes) {
    std::printf("the limit of open files allows %u nodes, not %u: raise it (ulimit -Hn)\n", report.nodes,
                options.nodes);
  }
  std::printf("%u simulated nodes, %u leases of %u s, windows of %u s\n", report.nodes, options.leases,
              options.ttl_s, options.seconds);
  std::printf("the manager's state: %.0f MiB on %s\n", static_cast<double>(report.state_bytes) / mib,
              report.state_on.c_str());
  std::printf("all nodes registered in %.1f s, all leases granted in %.1f s\n", report.register_s,
              report.fill_s);
  print("steady", report.before);
  std::printf("killed with -9 and started again: ready in %.0f ms, first grant in %.0f ms\n", report.ready_ms,
              report.first_grant_ms);
  std::printf("  leases lost %llu, nodes registered again %llu\n",
              static_cast<unsigned long long>(report.leases_lost),
              static_cast<unsigned long long>(report.registered_again));
  print("steady again", report.after);
}

std::string json_of(const ScaleWindow& one) {
  std::ostringstream text;
  text << R"({"manager_cpu": )" << one.manager_cpu                       //
       << R"(, "bench_cpu": )" << one.bench_cpu                          //
       << R"(, "heartbeats_per_second": )" << one.heartbeats_per_second  //
       << R"(, "heartbeat_p99_us": )" << one.heartbeat_p99_us            //
       << R"(, "renewals_per_second": )" << one.renewals_per_second      //
       << R"(, "renewal_p99_us": )" << one.renewal_p99_us                //
       << R"(, "probes": )" << one.probes                                //
       << R"(, "grant_p50_us": )" << one.grant_p50_us                    //
       << R"(, "grant_p99_us": )" << one.grant_p99_us                    //
       << R"(, "release_p50_us": )" << one.release_p50_us                //
       << R"(, "release_p99_us": )" << one.release_p99_us                //
       << R"(, "rss_bytes": )" << one.rss_bytes                          //
       << R"(, "pss_bytes": )" << one.pss_bytes << "}";
  return text.str();
}

std::string json_of(const ScaleOptions& options, const ScaleReport& report) {
  std::ostringstream text;
  text << R"({"benchmark": "scale", "nodes": )" << report.nodes << R"(, "leases": )" << options.leases
       << R"(, "ttl_s": )" << options.ttl_s << R"(, "seconds": )" << options.seconds                //
       << R"(, "state_on": ")" << report.state_on << R"(", "state_bytes": )" << report.state_bytes  //
       << R"(, "register_s": )" << report.register_s << R"(, "fill_s": )" << report.fill_s          //
       << ",\n"
       << R"("before": )" << json_of(report.before)  //
       << ",\n"
       << R"("ready_ms": )" << report.ready_ms << R"(, "first_grant_ms": )" << report.first_grant_ms
       << R"(, "leases_lost": )" << report.leases_lost << R"(, "registered_again": )"
       << report.registered_again << ",\n"
       << R"("after": )" << json_of(report.after) << "}\n";
  return text.str();
}

}  // namespace

int run_scale(int argc, char** argv) {
  ScaleOptions scale;
  std::string json;
  cxxopts::Options options(
      "sublet-bench scale",
      "Measures one manager under many simulated nodes and live leases, then kills it and "
      "measures its return.");
  options.add_options()  //
      ("nodes", "Simulated nodes, two connections each",
       cxxopts::value(scale.nodes)->default_value("10000"))                             //
      ("leases", "Live leases", cxxopts::value(scale.leases)->default_value("100000"))  //
      ("ttl", "Seconds to live of each, renewed at half",
       cxxopts::value(scale.ttl_s)->default_value("60"))                                        //
      ("seconds", "Length of each window", cxxopts::value(scale.seconds)->default_value("30"))  //
      ("probes", "Grants and releases a second, for their times",
       cxxopts::value(scale.probes)->default_value("100"))  //
      ("state-dir", "The manager's, kept (default: a temporary one below /var/tmp, removed)",
       cxxopts::value(scale.state_dir), "PATH")  //
      ("json", "Write the figures to this file as well", cxxopts::value(json), "FILE");
  if (!parse(options, argc, argv)) return 0;
  check(scale);
  const ScaleReport report = measure_scale(scale);
  print(scale, report);
  write_file(json, json_of(scale, report));
  return 0;
}

}  // namespace sublet::bench
