#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <sublet/client.hpp>
#include <thread>

#include "benchmarks/baselines/baseline.hpp"
#include "benchmarks/command.hpp"
#include "benchmarks/frame/pinning.hpp"
#include "benchmarks/frame/rounds.hpp"
#include "benchmarks/local_site.hpp"
#include "benchmarks/sublet_side.hpp"

namespace sublet::bench {
namespace {

using namespace std::chrono_literals;

constexpr auto wait_max = 60s;
constexpr std::size_t bytes_max = std::size_t{1} << 20;
constexpr std::size_t arena_bytes = std::size_t{16} << 20;

struct MixOptions {
  std::string transport;
  std::size_t bytes = 0;
  std::uint32_t clients = 0;
  std::uint32_t rounds = 0;
  std::uint32_t calls = 0;
  std::uint32_t hot_us = 0;
};

/// How even what each got is: 1 when all got the same, 1 / n when one got all (Jain's index).
double evenness(const std::vector<double>& shares) {
  double sum = 0;
  double squares = 0;
  for (const double share : shares) {
    sum += share;
    squares += share * share;
  }
  return squares > 0 ? sum * sum / (static_cast<double>(shares.size()) * squares) : 0;
}

/// Many sides as one: each client's in a thread of its own, all at once.
class Crowd final : public Side {
 public:
  explicit Crowd(std::string name) : name_(std::move(name)) {}
  void add(Side& side) { sides_.push_back(&side); }

  std::string name() const override { return name_; }
  std::chrono::nanoseconds run(const Plan& plan, Histogram& times) override {
    std::vector<Histogram> all(sides_.size());
    std::vector<double> rates(sides_.size());
    std::vector<std::exception_ptr> errors(sides_.size());
    std::barrier begin(static_cast<std::ptrdiff_t>(sides_.size()) + 1);
    std::vector<std::thread> threads;
    Clock::time_point begun{};
    for (std::size_t i = 0; i < sides_.size(); ++i) {
      threads.emplace_back([&, i] {
        begin.arrive_and_wait();
        try {
          (void)sides_[i]->run(plan, all[i]);
          rates[i] = 1 / std::chrono::duration<double>(Clock::now() - begun).count();
        } catch (...) {
          errors[i] = std::current_exception();
        }
      });
    }
    begun = Clock::now();
    begin.arrive_and_wait();
    for (std::thread& thread : threads) thread.join();
    // As if one client had made all calls one after the other: rounds reckon with plan.calls of them.
    const auto took = (Clock::now() - begun) / sides_.size();
    for (const std::exception_ptr& error : errors) {
      if (error) std::rethrow_exception(error);
    }
    for (const Histogram& one : all) times.add(one);
    fairness_.push_back(evenness(rates));
    return took;
  }
  /// Of each round, the one that does not count first.
  [[nodiscard]] std::vector<double> fairness_of_rounds() const {
    return {fairness_.begin() + 1, fairness_.end()};
  }

 private:
  std::string name_;
  std::vector<Side*> sides_;
  std::vector<double> fairness_;
};

void print(const Series& side, const Crowd& crowd) {
  std::printf("%-16s %10.0f %9.3f %9.3f %10.1f %10.1f %10.1f %10.1f", side.name.c_str(),
              median(side.calls_per_second), median(crowd.fairness_of_rounds()),
              percentile(crowd.fairness_of_rounds(), 0), side.times.quantile_us(0.5),
              side.times.quantile_us(0.99), side.times.quantile_us(0.999), side.times.max_us());
}

void add(Report& report, const MixOptions& options, const std::vector<Series>& sides, const Crowd& ours,
         const Crowd& theirs) {
  const Series& sublet = sides[0];
  const Series& raw = sides[1];
  const Ratio ratio = ratio_of(sublet.calls_per_second, raw.calls_per_second);
  std::printf("%-16s %10s %9s %9s %10s %10s %10s %10s  %s\n", "", "calls/s", "fairness", "worst", "p50 us",
              "p99", "p99.9", "max", "Sublet : it (quartiles)");
  print(sublet, ours);
  std::printf("\n");
  print(raw, theirs);
  std::printf("  %.3f (%.3f-%.3f)\n", ratio.median, ratio.q1, ratio.q3);
  report.add({"mix",
              options.transport,
              "warm",
              options.bytes,
              raw.name,
              {{"clients", options.clients},
               {"calls_per_s", median(sublet.calls_per_second)},
               {"raw_calls_per_s", median(raw.calls_per_second)},
               {"ratio", ratio.median},
               {"ratio_q1", ratio.q1},
               {"ratio_q3", ratio.q3},
               {"rounds", options.rounds},
               {"calls", options.calls},
               {"hot_us", options.hot_us},
               {"fairness", median(ours.fairness_of_rounds())},
               {"fairness_worst", percentile(ours.fairness_of_rounds(), 0)},
               {"raw_fairness", median(theirs.fairness_of_rounds())},
               {"p50_us", sublet.times.quantile_us(0.5)},
               {"p99_us", sublet.times.quantile_us(0.99)},
               {"p999_us", sublet.times.quantile_us(0.999)},
               {"max_us", sublet.times.max_us()},
               {"raw_p50_us", raw.times.quantile_us(0.5)},
               {"raw_p99_us", raw.times.quantile_us(0.99)},
               {"raw_p999_us", raw.times.quantile_us(0.999)},
               {"raw_max_us", raw.times.max_us()}}});
}

void measure(const MixOptions& options, Report& report) {
  const Pinning pinning = Pinning::choose();
  std::vector<int> everywhere = pinning.servers;
  everywhere.push_back(pinning.client);
  std::vector<std::unique_ptr<Baseline>> pairs;  // They fork: before there are threads.
  for (std::uint32_t i = 0; i < options.clients; ++i) {
    const BaselineShape shape{.cores = everywhere, .bytes_max = options.bytes};
    pairs.push_back(options.transport == "tcp" ? make_tcp_socket(shape) : make_shared_memory(shape));
  }
  LocalSite local({.workers = 2 * options.clients, .warm = options.clients, .warm_loaded = 0, .cores = {}});
  open_all(pairs, report);
  try {
    Site site = Site::connect(local.url()).value();
    site.deploy("echo", "1", function_module("echo")).value();
    local.wait_until_ready(options.clients);
    const std::chrono::microseconds hot(options.hot_us);
    std::vector<Lease> leases;
    for (std::uint32_t i = 0; i < options.clients; ++i) {
      leases.push_back(site.lease({.function = "echo@1",
                                   .wait = wait_max,
                                   .transports = {.require = {options.transport}},
                                   .arena_bytes = arena_bytes,
                                   .hot = hot})
                           .value());
    }
    std::vector<std::unique_ptr<SubletSide>> calls;
    Crowd ours("Sublet");
    Crowd theirs(pairs.front()->name());
    for (Lease& lease : leases) {
      calls.push_back(std::make_unique<SubletSide>(lease));
      ours.add(*calls.back());
    }
    for (const auto& pair : pairs) theirs.add(*pair);
    const Plan plan{.bytes = options.bytes, .warm_up = 10, .calls = options.calls, .hot = hot};
    add(report, options, run_rounds({&ours, &theirs}, plan, options.rounds), ours, theirs);
    for (Lease& lease : leases) lease.release().value();
  } catch (const std::exception& error) {
    throw std::runtime_error(error.what() + std::string("\n") + local.logs());
  }
}

}  // namespace

int run_mix(int argc, char** argv) {
  MixOptions mix;
  std::string json;
  cxxopts::Options options(
      "sublet-bench mix",
      "Measures many clients at once, each with a lease of its own on one node, against as many "
      "bare pairs of processes: calls a second, how evenly they are shared, the tail.");
  options.add_options()                                                                                    //
      ("transport", "tcp or shm", cxxopts::value(mix.transport)->default_value("tcp"))                     //
      ("clients", "At once, one worker each", cxxopts::value(mix.clients)->default_value("16"))            //
      ("size", "Bytes of input and output", cxxopts::value(mix.bytes)->default_value("64"))                //
      ("rounds", "Rounds, each of both sides", cxxopts::value(mix.rounds)->default_value("11"))            //
      ("calls", "Calls of each client a round", cxxopts::value(mix.calls)->default_value("2000"))          //
      ("hot-us", "How long ends poll before they sleep", cxxopts::value(mix.hot_us)->default_value("20"))  //
      ("json", "Write the figures to this file as well", cxxopts::value(json), "FILE");
  if (!parse(options, argc, argv)) return 0;
  check_one_of("--transport", mix.transport, {"tcp", "shm"});
  check_range("--clients", mix.clients, 1, 256);
  check_range("--size", mix.bytes, 1, bytes_max);
  check_range("--rounds", mix.rounds, 1, 1'000);
  check_range("--calls", mix.calls, 1, 1'000'000);
  check_range("--hot-us", mix.hot_us, 0, 1'000'000);
  Report report(json, argc, argv);
  report.set_pinning("none");
  std::printf("mix over %s: %u clients, %zu bytes, %u calls each a round, hot for %u us; %u rounds\n",
              mix.transport.c_str(), mix.clients, mix.bytes, mix.calls, mix.hot_us, mix.rounds);
  measure(mix, report);
  report.write();
  return 0;
}

}  // namespace sublet::bench
