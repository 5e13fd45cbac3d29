#include <array>
#include <cstdio>
#include <exception>
#include <string_view>

#include "benchmarks/command.hpp"

namespace {

using sublet::bench::Misuse;

constexpr int exit_usage = 2;

struct Command {
  const char* name;
  const char* about;  ///< Null: not for people.
  int (*run)(int, char**);
};

constexpr std::array commands{
    Command{"invoke", "calls of a function on one worker against the bare transport",
            sublet::bench::run_invoke},
    Command{"peers", "the same calls against gRPC", sublet::bench::run_peers},
    Command{"pipeline", "many calls in flight, calls and bytes a second", sublet::bench::run_pipeline},
    Command{"start", "from the request for a lease to the first result, by phases", sublet::bench::run_start},
    Command{"burst", "one lease of many workers, one call answered on each", sublet::bench::run_burst},
    Command{"mix", "many clients with leases on one node: fairness and tail", sublet::bench::run_mix},
    Command{"anatomy", "where the instructions and microseconds of a call go", sublet::bench::run_anatomy},
    Command{"lease", "grants and releases of leases against one manager with durable state",
            sublet::bench::run_lease},
    Command{"scale", "one manager under many nodes and live leases, and its return after kill -9",
            sublet::bench::run_scale},
    Command{"harvest", "idle core-seconds of a cluster that are lent, in simulated time",
            sublet::bench::run_harvest},
    Command{"chaos", "kill -9, SIGSTOP and restarts of a site under load, and whether anything was lost",
            sublet::bench::run_chaos},
    Command{"chaos-client", nullptr, sublet::bench::run_chaos_client},
};

void print_help() {
  std::puts("Measures and torments Sublet on this machine.\nUsage: sublet-bench COMMAND [OPTION...]\n");
  for (const Command& command : commands) {
    if (command.about != nullptr) std::printf("  %-8s %s\n", command.name, command.about);
  }
  std::puts("\nsublet-bench COMMAND --help lists a command's options.");
}

int run(int argc, char** argv) {
  const std::string_view word = argc > 1 ? argv[1] : "";
  if (word == "--help" || word == "-h") {
    print_help();
    return 0;
  }
  for (const Command& command : commands) {
    if (word == command.name) return command.run(argc - 1, argv + 1);
  }
  throw Misuse("say what to measure; --help lists what there is");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const Misuse& error) {
    std::fprintf(stderr, "sublet-bench: %s\n", error.what());
    return exit_usage;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "sublet-bench: %s\n", error.what());
    return 1;
  }
}
