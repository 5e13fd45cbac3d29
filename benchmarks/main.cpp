#include <cstdio>
#include <cxxopts.hpp>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>

#include "benchmarks/invoke.hpp"

namespace {

using sublet::bench::InvokeFigures;
using sublet::bench::InvokeOptions;

constexpr int exit_usage = 2;
constexpr std::size_t bytes_max = std::size_t{32} << 20;  // Half of a worker's default region.

struct Options {
  InvokeOptions invoke;
  std::string json;
  bool help = false;
};

void check(const Options& options) {
  if (options.invoke.transport != "tcp" && options.invoke.transport != "shm")
    throw std::invalid_argument("--transport is tcp or shm, not '" + options.invoke.transport + "'");
  if (options.invoke.rounds < 1 || options.invoke.calls < 1)
    throw std::invalid_argument("--rounds and --calls are at least 1");
  for (const std::size_t bytes : options.invoke.sizes) {
    if (bytes < 1 || bytes > bytes_max)
      throw std::invalid_argument("a --size is 1 to " + std::to_string(bytes_max));
  }
}

Options parse(int argc, char** argv) {
  Options options;
  std::vector<std::string> words;
  cxxopts::Options parser("sublet-bench", "Measures Sublet on this machine against a plain TCP socket.");
  parser.positional_help("invoke").add_options()                                                   //
      ("transport", "tcp or shm", cxxopts::value(options.invoke.transport)->default_value("tcp"))  //
      ("size", "Bytes of input and output, a list",
       cxxopts::value(options.invoke.sizes)->default_value("64,4096,65536,1048576"))                        //
      ("rounds", "Rounds, each of both sides", cxxopts::value(options.invoke.rounds)->default_value("21"))  //
      ("calls", "Calls a round", cxxopts::value(options.invoke.calls)->default_value("500"))                //
      ("json", "Write the figures to this file as well", cxxopts::value(options.json), "FILE")              //
      ("benchmark", "What to measure", cxxopts::value(words), "invoke")                                     //
      ("help", "Print this");
  parser.parse_positional("benchmark");
  const auto parsed = parser.parse(argc, argv);
  if (parsed.count("help") > 0) {
    std::puts(parser.help().c_str());
    options.help = true;
    return options;
  }
  if (words != std::vector<std::string>{"invoke"})
    throw std::invalid_argument("say what to measure: invoke; --help lists all");
  check(options);
  return options;
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

void write_json(const Options& options, const std::vector<InvokeFigures>& all) {
  std::ofstream file(options.json);
  file << R"({"benchmark": "invoke", "transport": ")" << options.invoke.transport << R"(", "rounds": )"
       << options.invoke.rounds << R"(, "calls": )" << options.invoke.calls << R"(, "figures": [)";
  const char* separator = "\n";
  for (const InvokeFigures& one : all) {
    file << separator << R"(  {"bytes": )" << one.bytes          //
         << R"(, "sublet_median_us": )" << one.sublet_median_us  //
         << R"(, "sublet_p99_us": )" << one.sublet_p99_us        //
         << R"(, "socket_median_us": )" << one.socket_median_us  //
         << R"(, "socket_p99_us": )" << one.socket_p99_us        //
         << R"(, "ratio_median": )" << one.ratio_median          //
         << R"(, "ratio_quartiles": [)" << one.ratio_low << ", " << one.ratio_high << "]}";
    separator = ",\n";
  }
  file << "\n]}\n";
  if (!file.flush()) throw std::runtime_error("cannot write " + options.json);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  try {
    options = parse(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "sublet-bench: %s\n", error.what());
    return exit_usage;
  }
  if (options.help) return 0;
  try {
    const std::vector<InvokeFigures> figures = sublet::bench::measure_invoke(options.invoke);
    print(options.invoke, figures);
    if (!options.json.empty()) write_json(options, figures);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "sublet-bench: %s\n", error.what());
    return 1;
  }
}
