// Tens of thousands of seeded schedules against the lease machine. A violation prints its seed and what
// came before it; --seed replays it.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cxxopts.hpp>
#include <deque>
#include <functional>
#include <optional>
#include <random>
#include <string>

#include "tests/simulation/simulation.hpp"

namespace {

using namespace sublet::simulation;

constexpr int steps = 500;
constexpr std::size_t trace_max = 60;

struct Options {
  std::uint64_t seed = 0;
  std::uint64_t schedules = 1;
  std::string fault;
  bool faults = false;
};

/// What is violated; empty when nothing is.
std::string run(std::uint64_t seed, Fault fault, std::function<void(const std::string&)> trace = nullptr) {
  try {
    Simulation(seed, fault, std::move(trace)).run(steps);
    return "";
  } catch (const Violation& violation) {
    return violation.what();
  }
}

void replay(std::uint64_t seed, Fault fault) {
  std::deque<std::string> last;
  static_cast<void>(run(seed, fault, [&](const std::string& line) {
    last.push_back(line);
    if (last.size() > trace_max) last.pop_front();
  }));
  for (const std::string& line : last) std::printf("  %s\n", line.c_str());
}

/// The seed of the first violation; nothing when all hold.
std::optional<std::uint64_t> search(const Options& options, Fault fault, std::string& what) {
  for (std::uint64_t i = 0; i < options.schedules; ++i) {
    what = run(options.seed + i, fault);
    if (!what.empty()) return options.seed + i;
  }
  return std::nullopt;
}

int find_faults(const Options& options) {
  int missed = 0;
  for (const NamedFault& planted : named_faults) {
    if (!options.fault.empty() && options.fault != planted.name) continue;
    std::string what;
    const auto seed = search(options, planted.fault, what);
    if (!seed) ++missed;
    std::printf("%-24s %s\n", planted.name,
                seed ? ("found by seed " + std::to_string(*seed) + ": " + what).c_str() : "NOT FOUND");
  }
  return missed == 0 ? 0 : 1;
}

int check_all(const Options& options) {
  const auto begun = std::chrono::steady_clock::now();
  std::string what;
  if (const auto seed = search(options, Fault::none, what)) {
    replay(*seed, Fault::none);
    std::printf("VIOLATION: %s\nreplay with --seed %llu --schedules 1\n", what.c_str(),
                static_cast<unsigned long long>(*seed));
    return 1;
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
  std::printf("%llu schedules of %d steps from --seed %llu hold, in %.1f s\n",
              static_cast<unsigned long long>(options.schedules), steps,
              static_cast<unsigned long long>(options.seed), took.count());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  const char* const given = std::getenv("SUBLET_SIMULATION_SEED");
  options.seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  cxxopts::Options parser("simulation", "Seeded schedules against the lease machine.");
  parser.add_options()  //
      ("seed", "Of the first schedule (default: SUBLET_SIMULATION_SEED, or random)",
       cxxopts::value(options.seed))                                                                      //
      ("schedules", "How many; each has the next seed", cxxopts::value(options.schedules))                //
      ("faults", "Plant each known fault and fail unless all are found", cxxopts::value(options.faults))  //
      ("fault", "Plant only this one", cxxopts::value(options.fault))                                     //
      ("help", "Print this");
  try {
    if (parser.parse(argc, argv).count("help") > 0) {
      std::puts(parser.help().c_str());
      return 0;
    }
  } catch (const cxxopts::exceptions::exception& error) {
    std::fprintf(stderr, "simulation: %s\n", error.what());
    return 2;
  }
  return options.faults ? find_faults(options) : check_all(options);
}
