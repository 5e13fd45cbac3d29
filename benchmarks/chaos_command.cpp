#include <cstdio>
#include <random>

#include "benchmarks/chaos/client.hpp"
#include "benchmarks/chaos/run.hpp"
#include "benchmarks/command.hpp"

namespace sublet::bench {
namespace {

using chaos::ChaosOptions;
using chaos::ChaosReport;

constexpr double minutes_max = 24 * 60;

void print(const ChaosOptions& options, const ChaosReport& report) {
  std::printf("%s\n%zu acts of chaos, %zu violations, --seed %llu\n", report.summary.c_str(), report.acts,
              report.violations.size(), static_cast<unsigned long long>(options.seed));
  if (report.violations.empty()) return;
  std::printf("\nwhat was done:\n");
  for (const std::string& line : report.history) std::printf("  %s\n", line.c_str());
  std::printf("\n%s\n\nviolations (replay with --minutes %g --seed %llu):\n", report.evidence.c_str(),
              options.minutes, static_cast<unsigned long long>(options.seed));
  for (const std::string& line : report.violations) std::printf("  %s\n", line.c_str());
}

}  // namespace

int run_chaos(int argc, char** argv) {
  ChaosOptions chaos;
  cxxopts::Options options(
      "sublet-bench chaos",
      "Kills, stops and restarts the processes of a site under load by a seeded schedule, "
      "then checks that nothing was lost, ran twice or was left behind.");
  options.add_options()                                                                         //
      ("minutes", "Of chaos", cxxopts::value(chaos.minutes)->default_value("2"))                //
      ("seed", "Of the schedule (default: random, printed)", cxxopts::value(chaos.seed))        //
      ("agents", "Agents, three cores each", cxxopts::value(chaos.agents)->default_value("3"))  //
      ("clients", "Client processes", cxxopts::value(chaos.clients)->default_value("4"));
  chaos.seed = std::random_device{}();
  if (!parse(options, argc, argv)) return 0;
  if (!(chaos.minutes > 0 && chaos.minutes <= minutes_max))
    throw Misuse("--minutes takes more than 0 and at most " + std::to_string(minutes_max));
  check_range("--agents", chaos.agents, 1, 16);
  check_range("--clients", chaos.clients, 1, 64);
  std::printf("sublet-bench chaos --minutes %g --seed %llu\n", chaos.minutes,
              static_cast<unsigned long long>(chaos.seed));
  std::fflush(stdout);
  const ChaosReport report = chaos::run_chaos(chaos);
  print(chaos, report);
  return report.violations.empty() ? 0 : 1;
}

int run_chaos_client(int argc, char** argv) {
  chaos::ClientOptions client;
  cxxopts::Options options("sublet-bench chaos-client", "One client of sublet-bench chaos, which starts it.");
  options.add_options()                                                       //
      ("manager", "Its address", cxxopts::value(client.manager))              //
      ("ledger", "What becomes of each call", cxxopts::value(client.ledger))  //
      ("tenant", "Its tenant", cxxopts::value(client.tenant))                 //
      ("transport", "shm or tcp", cxxopts::value(client.transport))           //
      ("seed", "Of its choices", cxxopts::value(client.seed));
  if (!parse(options, argc, argv)) return 0;
  chaos::run_client(client);
  return 0;
}

}  // namespace sublet::bench
