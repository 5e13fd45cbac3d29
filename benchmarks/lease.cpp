#include "benchmarks/lease.hpp"

#include <unistd.h>

#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <sublet/client.hpp>

#include "benchmarks/command.hpp"
#include "benchmarks/local_site.hpp"

namespace sublet::bench {
namespace {

using namespace std::chrono_literals;

constexpr auto start_max = 60s;
constexpr auto settle_max = 30s;
constexpr std::uint64_t ttl_ms = 60'000;
constexpr std::uint32_t cores_each = 4;  // For each ready worker: those that end still hold theirs.

struct Round {
  std::vector<double> grants_per_second, releases_per_second, grant_p50, grant_p99, release_p50, release_p99;
  std::vector<double> refused, manager_cpu, bench_cpu;
};

class Measurement {
 public:
  Measurement(const LeaseOptions& options, const Target& target, pid_t manager)
      : options_(options),
        manager_(manager),
        shape_{.cores = options.workers * cores_each,
               .ready = options.workers,
               .birth = std::chrono::milliseconds(options.birth_ms)},
        swarm_(loop_, target, shape_, options.nodes) {
    for (const unsigned clients : options.clients) {
      while (clients_.size() < clients) {
        clients_.emplace_back(loop_, target, swarm_, times_, lease_request("echo@1", ttl_ms));
      }
    }
  }

  void start() {
    if (!swarm_.start(SteadyClock::now() + start_max)) {
      throw std::runtime_error(std::to_string(swarm_.registered()) + " of " + std::to_string(options_.nodes) +
                               " nodes registered in time; look into the manager's log");
    }
  }

  void measure(unsigned clients, Round& round) {
    times_.clear();
    const auto manager_before = cpu_time(manager_);
    const auto bench_before = cpu_time(getpid());
    const TimePoint started = SteadyClock::now();
    for (unsigned i = 0; i < clients; ++i) clients_[i].start();
    loop_.run_for(std::chrono::milliseconds(options_.milliseconds));
    const double seconds = std::chrono::duration<double>(SteadyClock::now() - started).count();
    note(round, seconds);
    round.manager_cpu.push_back(std::chrono::duration<double>(cpu_time(manager_) - manager_before).count() /
                                seconds);
    round.bench_cpu.push_back(std::chrono::duration<double>(cpu_time(getpid()) - bench_before).count() /
                              seconds);
    settle(clients);
  }

 private:
  void note(Round& round, double seconds) const {
    const auto granted = static_cast<double>(times_.grant_us.size());
    if (times_.release_us.empty()) {
      throw std::runtime_error("no lease was granted: " +
                               (times_.refusal.empty() ? "no answer came in time" : times_.refusal));
    }
    round.grants_per_second.push_back(granted / seconds);
    round.releases_per_second.push_back(static_cast<double>(times_.release_us.size()) / seconds);
    round.grant_p50.push_back(percentile(times_.grant_us, 0.5));
    round.grant_p99.push_back(percentile(times_.grant_us, 0.99));
    round.release_p50.push_back(percentile(times_.release_us, 0.5));
    round.release_p99.push_back(percentile(times_.release_us, 0.99));
    const auto refused = static_cast<double>(times_.refused);
    round.refused.push_back(100 * refused / (granted + refused));
  }

  /// Between measurements all workers are ready again.
  void settle(unsigned clients) {
    for (unsigned i = 0; i < clients; ++i) clients_[i].stop();
    const TimePoint end = SteadyClock::now() + settle_max;
    const bool quiet = loop_.run(
        [&] {
          for (unsigned i = 0; i < clients; ++i) {
            if (!clients_[i].idle()) return false;
          }
          return swarm_.serving() == 0;
        },
        end);
    if (!quiet || !swarm_.settle(end)) throw std::runtime_error("the manager does not end released leases");
  }

  const LeaseOptions& options_;
  pid_t manager_;
  Loop loop_;
  NodeShape shape_;
  Swarm swarm_;
  LeaseTimes times_;
  std::deque<LeaseClient> clients_;
};

LeaseFigures figures_of(unsigned clients, const Round& round) {
  return {.clients = clients,
          .grants_per_second = median(round.grants_per_second),
          .grants_low = percentile(round.grants_per_second, 0.25),
          .grants_high = percentile(round.grants_per_second, 0.75),
          .releases_per_second = median(round.releases_per_second),
          .grant_p50_us = median(round.grant_p50),
          .grant_p99_us = median(round.grant_p99),
          .release_p50_us = median(round.release_p50),
          .release_p99_us = median(round.release_p99),
          .refused_percent = median(round.refused),
          .manager_cpu = median(round.manager_cpu),
          .bench_cpu = median(round.bench_cpu)};
}

std::vector<LeaseFigures> measure_at(const LeaseOptions& options, const std::string& url, pid_t manager) {
  const Target target = Target::parse(url);
  Site::connect(url).value().deploy("echo", "1", function_module("echo")).value();
  Measurement measurement(options, target, manager);
  measurement.start();
  std::vector<Round> all(options.clients.size());
  for (std::uint32_t round = 0; round < options.rounds + 1; ++round) {
    for (std::size_t i = 0; i < options.clients.size(); ++i) {
      Round warm_up;
      measurement.measure(options.clients[i], round == 0 ? warm_up : all[i]);
    }
  }
  std::vector<LeaseFigures> figures;
  for (std::size_t i = 0; i < options.clients.size(); ++i) {
    figures.push_back(figures_of(options.clients[i], all[i]));
  }
  return figures;
}

}  // namespace

LeaseReport measure_leases(const LeaseOptions& options) {
  if (!options.manager.empty()) return {"", measure_at(options, options.manager, options.manager_pid)};
  std::optional<TemporaryDirectory> temporary;
  std::filesystem::path directory = options.state_dir;
  if (directory.empty()) {
    temporary.emplace("/var/tmp");  // /tmp often lies in memory.
    directory = temporary->path();
  }
  std::filesystem::create_directories(directory);
  Manager manager(directory);
  try {
    return {file_system_of(directory), measure_at(options, manager.url(), manager.process().pid())};
  } catch (const std::exception& error) {
    throw std::runtime_error(error.what() + std::string("\n--- manager.log\n") + tail_of(manager.log()));
  }
}

}  // namespace sublet::bench
