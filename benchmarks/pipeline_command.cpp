#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <sublet/client.hpp>

#include "benchmarks/baselines/baseline.hpp"
#include "benchmarks/command.hpp"
#include "benchmarks/frame/pinning.hpp"
#include "benchmarks/frame/rounds.hpp"
#include "benchmarks/local_site.hpp"
#include "benchmarks/sublet_side.hpp"

namespace sublet::bench {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t bytes_max = std::size_t{4} << 20;
constexpr std::uint32_t window_max = 64;
constexpr std::uint32_t workers_max = 64;
constexpr auto start_max = 20s;
constexpr std::size_t round_bytes = std::size_t{64} << 20;  // More in one round gains nothing.
constexpr std::size_t large = std::size_t{1} << 20;
constexpr double large_ratio_min = 0.9;

struct PipelineOptions {
  std::string transport;
  std::vector<std::size_t> sizes;
  std::vector<std::uint32_t> windows;
  std::vector<std::uint32_t> workers;
  std::uint32_t rounds = 0;
  std::uint32_t calls = 0;
  std::vector<std::string> addresses;  ///< Of verbs, as given.
};

void check(const PipelineOptions& options) {
  check_one_of("--transport", options.transport, {"tcp", "shm", "verbs"});
  check_range("--rounds", options.rounds, 1, 10'000);
  check_range("--calls", options.calls, 1, 1'000'000);
  for (const std::size_t bytes : options.sizes) check_range("--size", bytes, 1, bytes_max);
  for (const std::uint32_t window : options.windows) check_range("--window", window, 1, window_max);
  for (const std::uint32_t workers : options.workers) check_range("--workers", workers, 1, workers_max);
}

/// Nobody sleeps while calls come, so long as one takes less than this. Emulated verbs are slow.
std::chrono::microseconds hot_of(const PipelineOptions& options) {
  return std::chrono::microseconds(options.transport == "verbs" ? 500'000 : 5'000);
}

/// Whose bytes a second ours ought to come near.
std::string barred(const PipelineOptions& options) {
  return options.transport == "verbs" ? "ib_write_bw" : "libfabric " + options.transport;
}

Plan plan_of(const PipelineOptions& options, std::size_t bytes, std::uint32_t window) {
  Plan plan{.bytes = bytes, .window = window, .hot = hot_of(options)};
  plan.warm_up = std::max(window, 16U);
  plan.calls =
      std::clamp(static_cast<std::uint32_t>(round_bytes / bytes), 2 * window, options.calls + 2 * window);
  return plan;
}

void add(Report& report, const PipelineOptions& options, const Plan& plan, std::uint32_t workers,
         const std::vector<Series>& sides) {
  const Series& ours = sides.front();
  const auto mib = [&](double calls) { return calls * static_cast<double>(plan.bytes) / (1U << 20U); };
  for (std::size_t i = 0; i < sides.size(); ++i) {
    const Series& side = sides[i];
    const double calls = median(side.calls_per_second);
    std::printf("%9zu %6u %7u  %-16s %10.0f %9.0f %10.1f %10.1f", plan.bytes, plan.window, workers,
                side.name.c_str(), calls, mib(calls), median(side.medians_us), side.times.quantile_us(0.99));
    if (i == 0) {
      std::printf("\n");
      continue;
    }
    const Ratio ratio = ratio_of(ours.calls_per_second, side.calls_per_second);
    std::printf("  %.3f (%.3f-%.3f)", ratio.median, ratio.q1, ratio.q3);
    Row row{"pipeline",
            options.transport,
            "hot",
            plan.bytes,
            side.name,
            {{"window", plan.window},
             {"workers", workers},
             {"calls_per_s", median(ours.calls_per_second)},
             {"raw_calls_per_s", calls},
             {"bytes_per_s", median(ours.calls_per_second) * static_cast<double>(plan.bytes)},
             {"ratio", ratio.median},
             {"ratio_q1", ratio.q1},
             {"ratio_q3", ratio.q3},
             {"rounds", static_cast<double>(ours.medians_us.size())},
             {"calls", plan.calls},
             {"p50_us", ours.times.quantile_us(0.5)},
             {"p99_us", ours.times.quantile_us(0.99)},
             {"p999_us", ours.times.quantile_us(0.999)},
             {"max_us", ours.times.max_us()},
             {"raw_p50_us", side.times.quantile_us(0.5)},
             {"raw_p99_us", side.times.quantile_us(0.99)},
             {"raw_p999_us", side.times.quantile_us(0.999)},
             {"raw_max_us", side.times.max_us()}}};
    // With one in flight an echo uses one way at a time, and ib_write_bw both.
    const bool comparable = options.transport != "verbs" || plan.window > 1;
    if (side.name == barred(options) && plan.bytes >= large && workers == 1 && comparable) {
      std::printf(" bar %.2f: %s", large_ratio_min, ratio.median >= large_ratio_min ? "met" : "missed");
      row.figures.emplace_back("bar_min", large_ratio_min);
    }
    std::printf("\n");
    report.add(std::move(row));
  }
  std::fflush(stdout);
}

void measure(const PipelineOptions& options, const Pinning& pinning, Report& report) {
  const BaselineShape shape{.cores = {pinning.servers.front()},
                            .bytes_max = *std::max_element(options.sizes.begin(), options.sizes.end()),
                            .window_max = *std::max_element(options.windows.begin(), options.windows.end())};
  VerbsAddresses addresses;
  std::vector<std::unique_ptr<Baseline>> baselines;  // They fork: before there are threads.
  if (options.transport == "tcp") {
    baselines.push_back(make_fabric_tcp(shape, false));
  } else if (options.transport == "verbs") {
    addresses = choose_verbs_addresses(options.addresses);
    baselines.push_back(make_verbs(shape, addresses, false));
    baselines.push_back(make_perftest(shape, addresses, true));
  } else {
    baselines.push_back(make_fabric_shm(shape));
    baselines.push_back(make_shared_memory(shape));
  }
  const std::uint32_t most = *std::max_element(options.workers.begin(), options.workers.end());
  const LocalSite local({.workers = 2 * most,
                         .warm = most,
                         .warm_loaded = most,
                         .cores = pinning.servers,
                         .verbs_address = addresses.server});
  open_all(baselines, report);
  try {
    Site site = Site::connect(local.url()).value();
    site.deploy("echo", "1", function_module("echo")).value();
    std::printf("%9s %6s %7s  %-16s %10s %9s %10s %10s  %s\n", "bytes", "window", "workers", "", "calls/s",
                "MiB/s", "median us", "p99", "Sublet : it (quartiles)");
    for (const std::uint32_t workers : options.workers) {
      Lease lease = site.lease({.function = "echo@1",
                                .workers = workers,
                                .wait = start_max,
                                .transports = {.require = {options.transport}},
                                .hot = hot_of(options)})
                        .value();
      const OnCore here(pinning.client);  // Only now: the library's own threads go where there is room.
      SubletSide ours(lease);
      std::vector<Side*> sides{&ours};
      for (const auto& baseline : baselines) sides.push_back(baseline.get());
      for (const std::size_t bytes : options.sizes) {
        for (const std::uint32_t window : options.windows) {
          const Plan plan = plan_of(options, bytes, window);
          add(report, options, plan, workers, run_rounds(sides, plan, options.rounds));
        }
      }
      lease.release().value();
    }
    print_repeated(baselines);
  } catch (const std::exception& error) {
    throw std::runtime_error(error.what() + std::string("\n") + local.logs());
  }
}

}  // namespace

int run_pipeline(int argc, char** argv) {
  PipelineOptions pipeline;
  std::string json;
  cxxopts::Options options(
      "sublet-bench pipeline",
      "Measures many echo calls in flight, on one worker and over several, against a pair over "
      "the bare transport with as many messages in flight.");
  options.add_options()                                                                             //
      ("transport", "tcp, shm or verbs", cxxopts::value(pipeline.transport)->default_value("tcp"))  //
      ("size", "Bytes of input and output, a list",
       cxxopts::value(pipeline.sizes)->default_value("64,1048576"))  //
      ("window", "Calls in flight, a list",
       cxxopts::value(pipeline.windows)->default_value("1,4,16,64"))  //
      ("workers", "Workers that share them, a list",
       cxxopts::value(pipeline.workers)->default_value("1,2"))                                       //
      ("rounds", "Rounds, each of all sides", cxxopts::value(pipeline.rounds)->default_value("11"))  //
      ("calls", "Calls a round, fewer of large ones",
       cxxopts::value(pipeline.calls)->default_value("5000"))  //
      ("verbs-addresses", "CLIENT,SERVER: RDMA devices' addresses; default: those of the first device",
       cxxopts::value(pipeline.addresses))  //
      ("json", "Write the figures to this file as well", cxxopts::value(json), "FILE");
  if (!parse(options, argc, argv)) return 0;
  check(pipeline);
  Report report(json, argc, argv);
  const Pinning pinning = Pinning::choose();
  report.set_pinning(pinning.text());
  std::printf("echo over %s, many in flight: %u rounds; %s\n", pipeline.transport.c_str(), pipeline.rounds,
              pinning.text().c_str());
  measure(pipeline, pinning, report);
  report.write();
  return 0;
}

}  // namespace sublet::bench
