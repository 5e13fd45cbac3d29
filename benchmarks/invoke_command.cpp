#include <cstdio>
#include <sstream>
#include <string>

#include "benchmarks/command.hpp"
#include "benchmarks/invoke.hpp"

namespace sublet::bench {
namespace {

constexpr std::size_t bytes_max = std::size_t{32} << 20;  // Half of a worker's default region.
constexpr std::uint64_t rounds_max = 10'000;
constexpr std::uint64_t calls_max = 10'000'000;

void check(const InvokeOptions& options) {
  if (options.transport != "tcp" && options.transport != "shm")
    throw Misuse("--transport is tcp or shm, not '" + options.transport + "'");
  check_range("--rounds", options.rounds, 1, rounds_max);
  check_range("--calls", options.calls, 1, calls_max);
  for (const std::size_t bytes : options.sizes) check_range("--size", bytes, 1, bytes_max);
}

void print(const InvokeOptions& options, const std::vector<InvokeFigures>& all) {
  std::printf("echo over %s against a plain TCP socket: %u rounds of %u calls, one in flight\n",
              options.transport.c_str(), options.rounds, options.calls);
  std::printf("%10s %12s %12s %12s %12s %8s %s\n", "bytes", "sublet us", "p99", "socket us", "p99", "ratio",
              "quartiles");
  for (const InvokeFigures& one : all) {
    std::printf("%10zu %12.2f %12.2f %12.2f %12.2f %8.2f %.2f-%.2f\n", one.bytes, one.sublet_median_us,
                one.sublet_p99_us, one.socket_median_us, one.socket_p99_us, one.ratio_median, one.ratio_low,
                one.ratio_high);
  }
}

std::string json_of(const InvokeOptions& options, const std::vector<InvokeFigures>& all) {
  std::ostringstream text;
  text << R"({"benchmark": "invoke", "transport": ")" << options.transport << R"(", "rounds": )"
       << options.rounds << R"(, "calls": )" << options.calls << R"(, "figures": [)";
  const char* separator = "\n";
  for (const InvokeFigures& one : all) {
    text << separator << R"(  {"bytes": )" << one.bytes          //
         << R"(, "sublet_median_us": )" << one.sublet_median_us  //
         << R"(, "sublet_p99_us": )" << one.sublet_p99_us        //
         << R"(, "socket_median_us": )" << one.socket_median_us  //
         << R"(, "socket_p99_us": )" << one.socket_p99_us        //
         << R"(, "ratio_median": )" << one.ratio_median          //
         << R"(, "ratio_quartiles": [)" << one.ratio_low << ", " << one.ratio_high << "]}";
    separator = ",\n";
  }
  text << "\n]}\n";
  return text.str();
}

}  // namespace

int run_invoke(int argc, char** argv) {
  InvokeOptions invoke;
  std::string json;
  cxxopts::Options options("sublet-bench invoke",
                           "Measures calls on one worker of this machine against a plain TCP socket.");
  options.add_options()                                                                    //
      ("transport", "tcp or shm", cxxopts::value(invoke.transport)->default_value("tcp"))  //
      ("size", "Bytes of input and output, a list",
       cxxopts::value(invoke.sizes)->default_value("64,4096,65536,1048576"))                        //
      ("rounds", "Rounds, each of both sides", cxxopts::value(invoke.rounds)->default_value("21"))  //
      ("calls", "Calls a round", cxxopts::value(invoke.calls)->default_value("500"))                //
      ("json", "Write the figures to this file as well", cxxopts::value(json), "FILE");
  if (!parse(options, argc, argv)) return 0;
  check(invoke);
  const std::vector<InvokeFigures> figures = measure_invoke(invoke);
  print(invoke, figures);
  write_file(json, json_of(invoke, figures));
  return 0;
}

}  // namespace sublet::bench
