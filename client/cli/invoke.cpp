#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <cxxopts.hpp>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "client/cli/commands.hpp"
#include "runtime/base/clock.hpp"
#include "sdk/cpp/sublet/client.hpp"

namespace sublet::cli {

namespace {

using Milliseconds = std::chrono::milliseconds;

struct Job {
  std::string manager;
  std::string function;
  std::string input;
  std::string output;
  std::uint32_t workers = 1;
  std::uint64_t repeat = 1;
  std::uint32_t concurrency = 1;
  std::vector<std::string> transports;
  std::uint64_t output_bytes = 0;
  CallOptions call;
};

struct Measured {
  std::vector<double> micros;
  std::uint64_t failed = 0;
  std::optional<Error> first_error;
  double seconds = 0;
};

/// One call under way, with the buffers that it may use again.
struct Lane {
  Buffer output;
  Future future;
  TimePoint sent;
};

cxxopts::Options describe() {
  cxxopts::Options options("sublet invoke",
                           "Leases workers, calls a function on them and prints its output.");
  options.positional_help("NAME@VERSION");
  const auto text = [](const char* otherwise) {
    return cxxopts::value<std::string>()->default_value(otherwise);
  };
  const auto number = [](const char* otherwise) {
    return cxxopts::value<std::uint64_t>()->default_value(otherwise);
  };
  options.add_options()("function", "What to call", cxxopts::value<std::string>())(
      "input", "File with the input, - for standard input; default: an empty input", text(""))(
      "output", "File for the output of the last call, - for standard output", text("-"))(
      "workers", "Workers to lease", number("1"))(
      "repeat", "Calls to make; more than one prints a summary to standard error", number("1"))(
      "concurrency", "Calls in flight", number("1"))(
      "transport", "tcp or shm; default: shm on the same machine, else tcp", text(""))(
      "deadline", "Of each call, milliseconds", number("30000"))(
      "entry", "Which function of the module", number("0"))("output-bytes", "Room for the output",
                                                            number("1048576"))(
      "manager", "The manager's address", text(default_manager().c_str()))("help", "This text");
  options.parse_positional({"function"});
  return options;
}

std::uint64_t number_in(const cxxopts::ParseResult& given, const char* name, std::uint64_t least,
                        std::uint64_t most) {
  const std::uint64_t value = given[name].as<std::uint64_t>();
  if (value >= least && value <= most) return value;
  throw Usage(std::string("--") + name + " must be " + std::to_string(least) + " to " + std::to_string(most));
}

std::string read_input(const std::string& path) {
  if (path.empty()) return {};
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Exception(Error(Errc::not_found, "cannot read " + path + ": " + std::strerror(errno)));
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_output(const std::string& path, std::span<const std::byte> bytes) {
  const char* const data = reinterpret_cast<const char*>(bytes.data());
  const auto size = static_cast<std::streamsize>(bytes.size());
  if (path == "-") {
    std::cout.write(data, size).flush();
    return;
  }
  std::ofstream file(path, std::ios::binary);
  file.write(data, size).flush();
  if (!file) throw Exception(Error(Errc::io_error, "cannot write " + path + ": " + std::strerror(errno)));
}

Job job_of(const cxxopts::ParseResult& given) {
  Job job;
  job.manager = given["manager"].as<std::string>();
  job.function = given["function"].as<std::string>();
  job.input = given["input"].as<std::string>();
  job.output = given["output"].as<std::string>();
  job.workers = static_cast<std::uint32_t>(number_in(given, "workers", 1, 4096));
  job.repeat = number_in(given, "repeat", 1, UINT64_MAX);
  job.concurrency = static_cast<std::uint32_t>(number_in(given, "concurrency", 1, 65536));
  job.output_bytes = number_in(given, "output-bytes", 0, std::uint64_t{1} << 40);
  job.call.entry = static_cast<std::uint32_t>(number_in(given, "entry", 0, UINT32_MAX));
  job.call.deadline = Milliseconds(number_in(given, "deadline", 1, 24 * 3600 * 1000));
  const std::string transport = given["transport"].as<std::string>();
  if (!transport.empty()) job.transports.push_back(transport);
  return job;
}

/// Enough slots for the calls in flight, and for more than one a worker.
std::uint32_t slots_for(const Job& job) {
  std::uint32_t slots = 1;
  while (slots < 4096 && slots * job.workers < job.concurrency) slots *= 2;
  return slots;
}

Lease acquire(const Job& job, std::size_t input_bytes) {
  Site site = Site::connect(job.manager).value();
  const std::size_t arena = input_bytes + (job.output_bytes + 64) * job.concurrency + 4096;
  return site
      .lease({.function = job.function,
              .workers = job.workers,
              .transports = job.transports,
              .in_flight = slots_for(job),
              .arena_bytes = arena})
      .value();
}

/// Takes the lane's result, if it has a call under way: the output's size, or nothing when it failed.
std::optional<std::size_t> collect(Lane& lane, Measured& measured) {
  const Result<std::size_t> result = lane.future.wait();
  measured.micros.push_back(
      std::chrono::duration<double, std::micro>(SteadyClock::now() - lane.sent).count());
  if (result.ok()) return *result;
  ++measured.failed;
  if (!measured.first_error) measured.first_error = result.error();
  return std::nullopt;
}

Measured run(const Job& job, Lease& lease, const Buffer& input, std::string& last_output) {
  Measured measured;
  std::vector<Lane> lanes;
  for (std::uint64_t lane = 0; lane < std::min<std::uint64_t>(job.concurrency, job.repeat); ++lane) {
    lanes.push_back({lease.allocate(job.output_bytes).value(), {}, {}});
  }
  measured.micros.reserve(job.repeat);
  const TimePoint start = SteadyClock::now();
  for (std::uint64_t call = 0; call < job.repeat + lanes.size(); ++call) {
    Lane& lane = lanes[call % lanes.size()];
    if (call >= lanes.size()) {
      const auto size = collect(lane, measured);
      if (size) last_output.assign(reinterpret_cast<const char*>(lane.output.data()), *size);
    }
    if (call >= job.repeat) continue;
    lane.sent = SteadyClock::now();
    lane.future = lease.submit(input, lane.output, job.call).value();
  }
  measured.seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
  return measured;
}

void summarize(const Job& job, const Lease& lease, Measured& measured) {
  std::map<std::string, unsigned> transports;
  for (const WorkerStatus& worker : lease.workers()) ++transports[worker.transport];
  std::sort(measured.micros.begin(), measured.micros.end());
  const auto percentile = [&](double part) {
    return measured.micros[static_cast<std::size_t>(part * static_cast<double>(measured.micros.size() - 1))];
  };
  std::cerr << std::fixed << std::setprecision(1) << job.repeat << " calls, " << measured.failed
            << " failed, " << static_cast<double>(job.repeat) / measured.seconds
            << " calls/s; latency us: median " << percentile(0.5) << ", 99 % " << percentile(0.99) << ", max "
            << measured.micros.back() << ";";
  for (const auto& [transport, workers] : transports) {
    std::cerr << ' ' << workers << (workers == 1 ? " worker" : " workers") << " over "
              << (transport.empty() ? "nothing (lost)" : transport);
  }
  std::cerr << '\n';
}

}  // namespace

int invoke(int argc, char** argv) {
  cxxopts::Options options = describe();
  const auto given = options.parse(argc, argv);
  if (given.count("help") != 0) {
    std::cout << options.help();
    return exit_ok;
  }
  if (given.count("function") == 0) throw Usage("invoke needs NAME@VERSION");
  const Job job = job_of(given);
  const std::string bytes = read_input(job.input);
  Lease lease = acquire(job, bytes.size());
  const Buffer input = lease.allocate(bytes.size()).value();
  if (!bytes.empty()) std::memcpy(input.data(), bytes.data(), bytes.size());
  std::string output;
  Measured measured = run(job, lease, input, output);
  if (job.repeat > 1) summarize(job, lease, measured);
  lease.release().value();
  if (measured.first_error) throw Exception(*measured.first_error);
  write_output(job.output, std::as_bytes(std::span(output)));
  return exit_ok;
}

}  // namespace sublet::cli
