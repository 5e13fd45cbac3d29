#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <sublet/client.hpp>

#include "benchmarks/baselines/verbs_addresses.hpp"
#include "benchmarks/command.hpp"
#include "benchmarks/frame/pinning.hpp"
#include "benchmarks/frame/report.hpp"
#include "benchmarks/frame/rounds.hpp"
#include "benchmarks/local_site.hpp"
#include "runtime/control/api.hpp"
#include "runtime/memory/region.hpp"
#include "runtime/transport/transport.hpp"
#include "runtime/wire/handshake.hpp"

namespace sublet::bench {
namespace {

using namespace std::chrono_literals;

constexpr auto wait_max = 20s;
constexpr std::size_t bytes = 64;
constexpr std::size_t arena_bytes = std::size_t{1} << 20;

struct StartOptions {
  std::string transport;
  std::vector<std::string> modes;
  std::uint32_t repeat = 0;
  std::vector<std::string> addresses;  ///< Of verbs, as given.
};

/// One phase over all repetitions.
struct Phase {
  const char* name;
  const char* key;
  std::vector<double> times_us{};
  Histogram histogram{};

  void add(Clock::time_point from, Clock::time_point to) {
    times_us.push_back(std::chrono::duration<double, std::micro>(to - from).count());
    histogram.add(to - from);
  }
};

struct Phases {
  Phase total{"request to first result", "total"};
  Phase lease{"  until the lease is there", "lease"};
  Phase first_call{"  first call", "first_call"};
  Phase grant{"  of which, apart: grant", "grant"};
  Phase open{"  open the transport", "open"};
  Phase connect{"  connect, handshake", "connect"};
  Phase process{"a process instead", "process"};

  [[nodiscard]] std::vector<Phase*> all() {
    return {&total, &lease, &grant, &open, &connect, &first_call, &process};
  }
};

/// The time that a program of the system takes from its start to its end: what one would pay without us.
void run_process(Phases& phases) {
  static char program[] = "/bin/true";
  char* arguments[] = {program, nullptr};
  pid_t pid = -1;
  const auto begun = Clock::now();
  if (posix_spawn(&pid, program, nullptr, nullptr, arguments, nullptr) != 0)
    throw std::runtime_error("/bin/true cannot be started");
  waitpid(pid, nullptr, 0);
  phases.process.add(begun, Clock::now());
}

LeaseOptions lease_options(const StartOptions& options) {
  return {.function = "echo@1",
          .wait = wait_max,
          .renew = false,
          .transports = {.require = {options.transport}},
          .arena_bytes = arena_bytes};
}

/// As a program of a user does it.
void run_client(Site& site, const StartOptions& options, Phases& phases) {
  const auto begun = Clock::now();
  Lease lease = site.lease(lease_options(options)).value();
  const auto leased = Clock::now();
  Buffer input = lease.allocate(bytes).value();
  Buffer output = lease.allocate(bytes).value();
  if (lease.invoke(input, bytes, output).value() != bytes) throw std::runtime_error("a wrong size came back");
  const auto ended = Clock::now();
  phases.total.add(begun, ended);
  phases.lease.add(begun, leased);
  phases.first_call.add(leased, ended);
  lease.release().value();
}

/// The same steps by hand, one after the other, so that each has a time of its own.
void run_steps(const std::string& url, const StartOptions& options, Phases& phases) {
  const api::LeaseRequest request{.function = "echo@1",
                                  .wait_ms = std::chrono::milliseconds(wait_max).count(),
                                  .transports = {.require = {options.transport}}};
  const auto begun = Clock::now();
  const auto http = control::HttpClient::create(url).value();
  const auto answer =
      control::body_of(http->request("POST", "/v1/leases", api::to_json(request), 2 * wait_max)).value();
  const auto grant = api::from_json<api::LeaseGrant>(answer).value();
  const auto granted = Clock::now();
  const auto region = memory::Region::create(arena_bytes, "sublet-bench").value();
  const auto transport = transport::open(options.transport).value();
  (void)transport->register_region(region).value();
  const auto opened = Clock::now();
  const wire::Hello hello{.slots_log2 = 6,
                          .slot_bytes_log2 = 16,
                          .token = wire::parse_token(grant.workers.front().token).value()};
  const std::string& address = grant.workers.front().endpoints.at(options.transport);
  auto connected = transport->connect(address, std::as_bytes(std::span(&hello, 1)), wait_max).value();
  const auto ended = Clock::now();
  phases.grant.add(begun, granted);
  phases.open.add(granted, opened);
  phases.connect.add(opened, ended);
  connected.connection->close();
  (void)control::body_of(http->request("DELETE", "/v1/leases/" + std::to_string(grant.lease), "", wait_max));
}

struct Mode {
  std::string name;
  const char* about;
  SiteShape shape;
  unsigned ready;  ///< Idle workers before each start.
};

Mode mode_of(const std::string& name) {
  if (name == "warm") return {name, "an idle worker has the function loaded", {4, 1, 1}, 2};
  if (name == "cold") return {name, "an idle worker has to load the function", {4, 1, 0}, 1};
  return {name, "no idle worker: the request waits for the next one to be forked", {4, 1, 0}, 1};
}

void print(Phases& phases) {
  std::printf("%-28s %10s %10s %10s %10s\n", "", "p50 us", "p99", "p99.9", "max");
  for (const Phase* phase : phases.all()) {
    if (phase->times_us.empty()) continue;
    std::printf("%-28s %10.0f %10.0f %10.0f %10.0f\n", phase->name, phase->histogram.quantile_us(0.5),
                phase->histogram.quantile_us(0.99), phase->histogram.quantile_us(0.999),
                phase->histogram.max_us());
  }
  std::fflush(stdout);
}

Row row_of(const StartOptions& options, const Mode& mode, Phases& phases) {
  const Ratio ratio = ratio_of(phases.total.times_us, phases.process.times_us);
  Row row{"start",
          options.transport,
          mode.name,
          bytes,
          "a process",
          {{"rtt_us", median(phases.total.times_us)},
           {"raw_rtt_us", median(phases.process.times_us)},
           {"ratio", ratio.median},
           {"ratio_q1", ratio.q1},
           {"ratio_q3", ratio.q3},
           {"rounds", static_cast<double>(phases.total.times_us.size())}}};
  for (const Phase* phase : phases.all()) {
    if (phase->times_us.empty()) continue;
    const std::string key = phase->key;
    row.figures.emplace_back(key + "_p50_us", phase->histogram.quantile_us(0.5));
    row.figures.emplace_back(key + "_p99_us", phase->histogram.quantile_us(0.99));
    row.figures.emplace_back(key + "_p999_us", phase->histogram.quantile_us(0.999));
    row.figures.emplace_back(key + "_max_us", phase->histogram.max_us());
  }
  return row;
}

void measure(const StartOptions& options, const Mode& mode, Report& report) {
  SiteShape shape = mode.shape;
  if (options.transport == "verbs") shape.verbs_address = choose_verbs_addresses(options.addresses).server;
  LocalSite local(shape);
  try {
    Site site = Site::connect(local.url()).value();
    site.deploy("echo", "1", function_module("echo")).value();
    std::printf("start over %s, %s: %s; %u times\n", options.transport.c_str(), mode.name.c_str(), mode.about,
                options.repeat);
    local.wait_until_ready(1);
    Phases warm_up;
    run_client(site, options, warm_up);  // The agent fetches the function; this process loads libfabric.
    auto phases = std::make_unique<Phases>();
    for (std::uint32_t i = 0; i < options.repeat; ++i) {
      local.wait_until_ready(mode.ready);
      if (mode.name == "none") {
        const Lease last_idle = site.lease(lease_options(options)).value();
        run_client(site, options, *phases);
      } else {
        run_client(site, options, *phases);
        local.wait_until_ready(mode.ready);
        run_steps(local.url(), options, *phases);
      }
      run_process(*phases);
    }
    print(*phases);
    report.add(row_of(options, mode, *phases));
  } catch (const std::exception& error) {
    throw std::runtime_error(error.what() + std::string("\n") + local.logs());
  }
}

}  // namespace

int run_start(int argc, char** argv) {
  StartOptions start;
  std::string json;
  cxxopts::Options options(
      "sublet-bench start",
      "Measures the way from the request for a lease to the first result, and its steps.");
  options.add_options()                                                                          //
      ("transport", "tcp, shm or verbs", cxxopts::value(start.transport)->default_value("tcp"))  //
      ("mode", "A list: warm (function loaded), cold (worker without it), none (no idle worker)",
       cxxopts::value(start.modes)->default_value("warm,cold,none"))                     //
      ("repeat", "Starts of each", cxxopts::value(start.repeat)->default_value("1000"))  //
      ("verbs-addresses", "CLIENT,SERVER: RDMA devices' addresses; default: those of the first device",
       cxxopts::value(start.addresses))  //
      ("json", "Write the figures to this file as well", cxxopts::value(json), "FILE");
  if (!parse(options, argc, argv)) return 0;
  check_one_of("--transport", start.transport, {"tcp", "shm", "verbs"});
  for (const std::string& mode : start.modes) check_one_of("--mode", mode, {"warm", "cold", "none"});
  check_range("--repeat", start.repeat, 1, 1'000'000);
  Report report(json, argc, argv);
  report.set_pinning("none");
  for (const std::string& mode : start.modes) measure(start, mode_of(mode), report);
  report.write();
  return 0;
}

}  // namespace sublet::bench
