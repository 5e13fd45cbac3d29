#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "client/cli/call_failed.hpp"
#include "client/cli/json.hpp"
#include "client/cli/latencies.hpp"
#include "client/cli/manager.hpp"
#include "client/cli/progress.hpp"
#include "client/cli/terminal.hpp"
#include "client/cli/units.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/base/limits.hpp"
#include "sdk/cpp/sublet/client.hpp"

namespace sublet::cli {

namespace {

constexpr const char* interrupted_text =
    "\nsublet: waiting for the calls in flight; Ctrl-C again ends at once, without giving the lease back\n";

struct Job {
  std::string manager;
  std::string function;
  std::string input;
  std::string output;  ///< Empty: nowhere.
  std::string tenant;
  std::uint32_t workers = 1;
  std::uint32_t cores = 1;
  std::uint64_t memory_bytes = 0;
  std::chrono::seconds wait{5};
  std::uint64_t repeat = 1;
  std::uint32_t concurrency = 1;
  Transports transports;
  std::uint64_t output_bytes = 0;
  CallOptions call;
  bool json = false;
};

struct Measured {
  Latencies latencies;
  std::uint64_t failed = 0;
  std::optional<Error> first_error;
  double seconds = 0;
  bool interrupted = false;
};

/// One call under way, with the buffers that it may use again.
struct Lane {
  Buffer output;
  std::optional<Future> future;
  TimePoint sent;
};

std::string read_all(std::istream& from) {
  return {std::istreambuf_iterator<char>(from), std::istreambuf_iterator<char>()};
}

std::string read_input(const std::string& path) {
  if (path.empty()) return {};
  if (path == "-") return read_all(std::cin);
  std::error_code unknown;
  if (std::filesystem::is_directory(path, unknown))
    throw std::runtime_error(path + " is a folder; name a file in it");
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path + ": " + std::strerror(errno));
  return read_all(file);
}

/// Before the calls, whose output would be lost.
void check_output(const std::string& path) {
  if (path.empty() || path == "-") return;
  std::error_code unknown;
  if (std::filesystem::is_directory(path, unknown))
    throw std::runtime_error(path + " is a folder; name a file in it");
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty() && !std::filesystem::is_directory(folder, unknown))
    throw std::runtime_error("cannot write " + path + ": there is no folder " + folder.string());
}

void write_output(const std::string& path, const std::string& bytes) {
  if (path.empty()) return;
  if (path == "-") {
    std::cout << bytes;
    return;
  }
  std::ofstream file(path, std::ios::binary);
  file << bytes << std::flush;
  if (!file) throw std::runtime_error("cannot write " + path + ": " + std::strerror(errno));
}

Job job_of(const Arguments& given) {
  const auto small = [&](const char* option, std::uint64_t least, std::uint64_t most) {
    return static_cast<std::uint32_t>(given.number(option, 1, least, most));
  };
  Job job;
  job.manager = given.manager();
  job.function = given.operands()[0];
  job.json = given.json();
  job.input = given.text("input");
  job.output = given.text("output", job.json ? "" : "-");
  if (job.json && job.output == "-")
    throw Usage("with --json the output goes to a file: name one with --output");
  job.tenant = given.text("tenant", "default");
  job.workers = small("workers", 1, limits::lease_workers_max);
  job.cores = small("cores", 1, UINT32_MAX);
  job.memory_bytes = given.bytes("memory", 0, std::uint64_t{1} << 50);
  job.wait = std::chrono::seconds(given.number("wait", 5, 0, limits::lease_wait_max.count()));
  job.repeat = given.number("repeat", 1, 1, std::uint64_t{1} << 53);
  job.concurrency = small("concurrency", 1, 65536);
  job.output_bytes = given.bytes("output-bytes", std::uint64_t{1} << 20, std::uint64_t{1} << 40);
  job.call.entry = static_cast<std::uint32_t>(given.number("entry", 0, 0, UINT32_MAX));
  job.call.deadline =
      std::chrono::milliseconds(given.number("deadline", 30'000, 1, limits::call_deadline_max.count()));
  job.transports = {.require = given.list("transport"),
                    .prefer = given.list("prefer-transport"),
                    .forbid = given.list("forbid-transport")};
  return job;
}

/// Enough slots for the calls in flight, and for more than one a worker.
std::uint32_t slots_for(const Job& job) {
  std::uint32_t slots = 1;
  while (slots < limits::slots_max && std::uint64_t{slots} * job.workers < job.concurrency) slots *= 2;
  return slots;
}

Lease acquire(const Job& job, std::size_t input_bytes) {
  Manager manager(job.manager);
  (void)manager.get("/readyz");
  const Progress progress([&](SteadyClock::duration passed) {
    return "waiting for " + std::to_string(job.workers) +
           (job.workers == 1 ? " worker of " : " workers of ") + job.function + ", " + in_time(passed) +
           " of " + in_time(job.wait);
  });
  Site site = Site::connect(job.manager, {.tenant = job.tenant}).value();
  const std::size_t arena = input_bytes + (job.output_bytes + 64) * job.concurrency + 4096;
  Result<Lease> lease = site.lease({.function = job.function,
                                    .workers = job.workers,
                                    .cores = job.cores,
                                    .memory_bytes = job.memory_bytes,
                                    .wait = job.wait,
                                    .transports = job.transports,
                                    .in_flight = slots_for(job),
                                    .arena_bytes = arena});
  if (!lease && lease.error().code() == Errc::not_found) manager.throw_unless_deployed(job.function);
  // Throws when it is the manager that has gone meanwhile.
  if (!lease && lease.error().code() == Errc::unavailable) (void)manager.get("/healthz");
  return std::move(lease).value();
}

/// Takes the lane's result: the output's size, or nothing when the call failed.
std::optional<std::size_t> collect(Lane& lane, Measured& measured) {
  const Result<std::size_t> result = lane.future->wait();
  lane.future.reset();
  const auto took = std::chrono::duration_cast<std::chrono::nanoseconds>(SteadyClock::now() - lane.sent);
  measured.latencies.add(static_cast<std::uint64_t>(took.count()));
  if (result) return *result;
  ++measured.failed;
  if (!measured.first_error) measured.first_error = result.error();
  return std::nullopt;
}

Measured run(const Job& job, Lease& lease, const Buffer& input, std::string& last_output) {
  Measured measured;
  std::vector<Lane> lanes(std::min<std::uint64_t>(job.concurrency, job.repeat));
  for (Lane& lane : lanes) lane.output = lease.allocate(job.output_bytes).value();
  std::atomic<std::uint64_t> done = 0;
  const Progress progress([&](SteadyClock::duration passed) {
    return std::to_string(done) + " of " + std::to_string(job.repeat) + " calls, " + in_time(passed);
  });
  const TimePoint start = SteadyClock::now();
  for (std::uint64_t call = 0; call < job.repeat + lanes.size(); ++call) {
    Lane& lane = lanes[call % lanes.size()];
    if (lane.future) {
      const auto size = collect(lane, measured);
      if (size) last_output.assign(reinterpret_cast<const char*>(lane.output.data()), *size);
      done.store(measured.latencies.count(), std::memory_order_relaxed);
    }
    if (call >= job.repeat || measured.interrupted) continue;
    if (Interrupt::wanted()) {
      measured.interrupted = true;
      call =
          job.repeat - 1;  // What follows only collects: one round over the lanes, from the oldest call on.
      continue;
    }
    lane.sent = SteadyClock::now();
    auto submitted = lease.submit(input, lane.output, job.call);
    // Every worker that could take it is full, one having gone, perhaps: calls in flight make room.
    for (std::size_t next = 1;
         !submitted && submitted.error().code() == Errc::queue_full && next < lanes.size(); ++next) {
      Lane& oldest = lanes[(call + next) % lanes.size()];
      if (!oldest.future) continue;
      static_cast<void>(collect(oldest, measured));
      submitted = lease.submit(input, lane.output, job.call);
    }
    if (!submitted && submitted.error().code() == Errc::invalid_argument) {
      throw Exception(Error(Errc::invalid_argument, "--entry: " + job.function + " has no entry " +
                                                        std::to_string(job.call.entry) +
                                                        "; a module counts its own from 0"));
    }
    lane.future = std::move(submitted).value();
  }
  measured.seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
  return measured;
}

double calls_per_second(const Measured& measured) {
  return measured.seconds > 0 ? static_cast<double>(measured.latencies.count()) / measured.seconds : 0;
}

void summarize(const Lease& lease, const Measured& measured) {
  std::map<std::string, unsigned> transports;
  for (const WorkerStatus& worker : lease.workers()) ++transports[worker.transport];
  const auto micros = [&](std::uint64_t ns) { return in_decimal(static_cast<double>(ns) / 1e3); };
  const Latencies& took = measured.latencies;
  std::cerr << took.count() << " calls, " << measured.failed << " failed, "
            << in_decimal(calls_per_second(measured)) << " calls/s; latency us: median "
            << micros(took.percentile(0.5)) << ", 99 % " << micros(took.percentile(0.99)) << ", max "
            << micros(took.max()) << ";";
  for (const auto& [transport, workers] : transports) {
    std::cerr << ' ' << workers << (workers == 1 ? " worker" : " workers") << " over "
              << (transport.empty() ? "nothing (lost)" : transport);
  }
  std::cerr << '\n';
}

void print_json(const Job& job, const Lease& lease, const Measured& measured, std::size_t output_bytes) {
  const Latencies& took = measured.latencies;
  const auto micros = [](std::uint64_t ns) { return static_cast<double>(ns) / 1e3; };
  std::vector<std::string> workers;
  for (const WorkerStatus& worker : lease.workers()) {
    workers.push_back(JsonObject()
                          .text("node", worker.node)
                          .number("worker", worker.worker)
                          .text("transport", worker.transport)
                          .text("why", worker.why)
                          .truth("fell_back", worker.fell_back)
                          .str());
  }
  JsonObject summary;
  if (measured.first_error) {
    const Error& error = *measured.first_error;
    summary.text("error", name(error.code()))
        .text("message", error.detail().empty() ? explain(error.code()) : error.detail());
  }
  summary.text("function", job.function)
      .number("lease", lease.id())
      .number("calls", took.count())
      .number("failed", measured.failed)
      .truth("interrupted", measured.interrupted)
      .decimal("seconds", measured.seconds)
      .decimal("calls_per_second", calls_per_second(measured))
      .raw("latency_us", JsonObject()
                             .decimal("median", micros(took.percentile(0.5)))
                             .decimal("p99", micros(took.percentile(0.99)))
                             .decimal("max", micros(took.max()))
                             .str())
      .number("output_bytes", output_bytes)
      .raw("workers", json_array(workers));
  std::cout << summary.str() << '\n';
}

/// A line for all workers that were reached by another transport than wished, and for the same reason.
void tell_fallbacks(const Lease& lease) {
  std::map<std::pair<std::string, std::string>, unsigned> fallen;
  for (const WorkerStatus& worker : lease.workers()) {
    if (worker.fell_back) ++fallen[{worker.transport, worker.why}];
  }
  for (const auto& [way, workers] : fallen) {
    std::cerr << "sublet: " << workers << (workers == 1 ? " worker is" : " workers are") << " reached over "
              << way.first << ": " << printable(way.second) << '\n';
  }
}

}  // namespace

int invoke(const Arguments& given) {
  const Job job = job_of(given);
  check_output(job.output);
  const std::string bytes = read_input(job.input);
  Lease lease = acquire(job, bytes.size());
  if (!job.json) tell_fallbacks(lease);
  const Interrupt interrupt(interrupted_text);
  const Buffer input = lease.allocate(bytes.size()).value();
  if (!bytes.empty()) std::memcpy(input.data(), bytes.data(), bytes.size());
  std::string output;
  const Measured measured = run(job, lease, input, output);
  if (job.json) {
    print_json(job, lease, measured, output.size());
  } else if (job.repeat > 1) {
    summarize(lease, measured);
  }
  const Status released = lease.release();
  if (measured.interrupted) return exit_interrupted;
  if (measured.first_error) {
    if (job.json) return exit_call_failed;
    throw CallFailed(*measured.first_error);
  }
  write_output(job.output, output);
  if (!released && !job.json) {
    std::cerr << "sublet: the manager has not heard that the lease ends, and ends it by its time: "
              << printable(released.error().message()) << '\n';
  }
  return exit_ok;
}

}  // namespace sublet::cli
