#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <sublet/client.hpp>

#include "benchmarks/baselines/baseline.hpp"
#include "benchmarks/command.hpp"
#include "benchmarks/frame/comparison.hpp"
#include "benchmarks/frame/pinning.hpp"
#include "benchmarks/local_site.hpp"
#include "benchmarks/peers/grpc.hpp"
#include "benchmarks/sublet_side.hpp"

namespace sublet::bench {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t bytes_max = std::size_t{32} << 20;    // Half of a worker's default region.
constexpr std::size_t round_bytes = std::size_t{32} << 20;  // More in one round gains nothing.
constexpr std::uint32_t calls_min = 20;
constexpr auto start_max = 20s;

struct InvokeOptions {
  std::string bench;  ///< "invoke", or "peers": the same against other systems.
  std::string transport;
  std::string mode;
  std::vector<std::size_t> sizes;
  std::uint32_t rounds = 0;
  std::uint32_t calls = 0;
  std::uint32_t hot_us = 0;
  std::uint32_t pause_us = 0;
  std::vector<std::string> addresses;  ///< Of verbs, as given.
};

void check(const InvokeOptions& options) {
  check_one_of("--transport", options.transport, {"tcp", "shm", "verbs"});
  check_one_of("--mode", options.mode, {"hot", "warm"});
  check_range("--rounds", options.rounds, 1, 10'000);
  check_range("--calls", options.calls, 1, 1'000'000);
  check_range("--hot-us", options.hot_us, 1, 1'000'000);
  check_range("--pause-us", options.pause_us, 1, 1'000'000);
  for (const std::size_t bytes : options.sizes) check_range("--size", bytes, 1, bytes_max);
}

Plan plan_of(const InvokeOptions& options, std::size_t bytes) {
  // Hot: nobody sleeps while calls come, so long as one takes less than this. Emulated verbs are slow.
  const std::chrono::microseconds hot_in_hot_mode{options.transport == "verbs" ? 100'000 : 5'000};
  const bool warm = options.mode == "warm";
  Plan plan{
      .bytes = bytes,
      .calls = std::min(options.calls, std::max(calls_min, static_cast<std::uint32_t>(round_bytes / bytes)))};
  plan.warm_up = std::max(calls_min / 2, plan.calls / 10);
  plan.hot = warm ? std::chrono::microseconds(options.hot_us) : hot_in_hot_mode;
  plan.pause = std::chrono::microseconds(warm ? options.pause_us : 0);
  return plan;
}

constexpr const char* fabric_shm = "libfabric shm";

/// How much of the bare provider's time a call may take. shm: the provider cannot sleep, bare memory can.
Bar bar_of(const InvokeOptions& options, std::size_t bytes) {
  const bool warm = options.mode == "warm";
  constexpr std::size_t large = 65'536;
  if (options.bench == "peers") return {};  // A comparison, not an aim.
  if (options.transport == "verbs") return {warm ? "bare verbs, events" : "bare verbs", warm ? 1.15 : 1.10};
  const double ratio_max = warm ? 1.15 : bytes < large ? 1.10 : 1.05;
  if (options.transport == "tcp") return {warm ? "libfabric tcp, descriptor" : "libfabric tcp", ratio_max};
  return {warm ? "shared memory" : fabric_shm, ratio_max};
}

/// The first one comes next to Sublet in each round.
std::vector<std::unique_ptr<Baseline>> baselines_for(const InvokeOptions& options, const BaselineShape& shape,
                                                     const VerbsAddresses& addresses, const Pinning& pinning,
                                                     Report& report) {
  const bool warm = options.mode == "warm";
  std::vector<std::unique_ptr<Baseline>> all;
  if (options.bench == "peers") {
    for (const bool streaming : {false, true})
      all.push_back(make_grpc({pinning.client}, pinning.servers, streaming));
    return all;
  }
  if (options.transport == "tcp") {
    if (!warm) all.push_back(make_fabric_tcp(shape, false));
    all.push_back(make_fabric_tcp(shape, true));
    all.push_back(make_tcp_socket(shape));
    all.push_back(make_framed_socket(shape));
    all.push_back(make_unix_socket(shape));
    all.push_back(make_shared_memory(shape));
    return all;
  }
  if (options.transport == "verbs") {
    all.push_back(make_verbs(shape, addresses, warm));
    if (!warm) all.push_back(make_perftest(shape, addresses, false));
    return all;
  }
  all.push_back(make_shared_memory(shape));
  if (warm) {
    report.leave_out(fabric_shm, "its queue has no descriptor to sleep on");
  } else {
    all.push_back(make_fabric_shm(shape));
  }
  all.push_back(make_unix_socket(shape));
  all.push_back(make_tcp_socket(shape));
  return all;
}

void measure(const InvokeOptions& options, const Pinning& pinning, Report& report) {
  const BaselineShape shape{.cores = {pinning.servers.front()},
                            .bytes_max = *std::max_element(options.sizes.begin(), options.sizes.end())};
  const VerbsAddresses addresses =
      options.transport == "verbs" ? choose_verbs_addresses(options.addresses) : VerbsAddresses{};
  // They fork: before there are threads.
  auto baselines = baselines_for(options, shape, addresses, pinning, report);
  const LocalSite local({.workers = 1, .cores = pinning.servers, .verbs_address = addresses.server});
  open_all(baselines, report);
  try {
    Site site = Site::connect(local.url()).value();
    site.deploy("echo", "1", function_module("echo")).value();
    Lease lease = site.lease({.function = "echo@1",
                              .wait = start_max,
                              .transports = {.require = {options.transport}},
                              .hot = plan_of(options, 1).hot})
                      .value();
    const OnCore here(pinning.client);  // Only now: the library's own threads go where there is room.
    SubletSide ours(lease);
    std::vector<Side*> sides{&ours};
    for (const auto& baseline : baselines) sides.push_back(baseline.get());
    print_heads();
    for (const std::size_t bytes : options.sizes) {
      const Plan plan = plan_of(options, bytes);
      add_round_trips(report, {options.bench, options.transport, options.mode}, plan,
                      run_rounds(sides, plan, options.rounds), bar_of(options, bytes));
    }
    print_repeated(baselines);
    lease.release().value();
  } catch (const std::exception& error) {
    throw std::runtime_error(error.what() + std::string("\n") + local.logs());
  }
}

}  // namespace

namespace {

int run(const char* bench, const char* about, int argc, char** argv) {
  InvokeOptions invoke{.bench = bench};
  std::string json;
  cxxopts::Options options(std::string("sublet-bench ") + bench, about);
  options.add_options()                                                                           //
      ("transport", "tcp, shm or verbs", cxxopts::value(invoke.transport)->default_value("tcp"))  //
      ("mode", "hot: both ends poll; warm: both sleep between calls",
       cxxopts::value(invoke.mode)->default_value("hot"))  //
      ("size", "Bytes of input and output, a list",
       cxxopts::value(invoke.sizes)->default_value("1,64,1024,4096,65536,1048576"))                        //
      ("rounds", "Rounds, each of all sides", cxxopts::value(invoke.rounds)->default_value("21"))          //
      ("calls", "Calls a round, fewer of large ones", cxxopts::value(invoke.calls)->default_value("500"))  //
      ("hot-us", "warm: how long both ends poll before they sleep",
       cxxopts::value(invoke.hot_us)->default_value("50"))  //
      ("pause-us", "warm: idle time before each call",
       cxxopts::value(invoke.pause_us)->default_value("2000"))  //
      ("verbs-addresses", "CLIENT,SERVER: RDMA devices' addresses; default: those of the first device",
       cxxopts::value(invoke.addresses))  //
      ("json", "Write the figures to this file as well", cxxopts::value(json), "FILE");
  if (!parse(options, argc, argv)) return 0;
  check(invoke);
  Report report(json, argc, argv);
  const Pinning pinning = Pinning::choose();
  report.set_pinning(pinning.text());
  std::printf("echo over %s, %s, one in flight: %u rounds of up to %u calls; %s\n", invoke.transport.c_str(),
              invoke.mode.c_str(), invoke.rounds, invoke.calls, pinning.text().c_str());
  measure(invoke, pinning, report);
  report.write();
  return 0;
}

}  // namespace

int run_invoke(int argc, char** argv) {
  return run(
      "invoke",
      "Measures calls of an echo function on one worker, one in flight, against the bare transport below "
      "and others, in turns.",
      argc, argv);
}

int run_peers(int argc, char** argv) {
  return run("peers", "Measures the same calls against the same echo over gRPC, in turns.", argc, argv);
}

}  // namespace sublet::bench
