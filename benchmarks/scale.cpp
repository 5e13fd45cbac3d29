#include "benchmarks/scale.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <sublet/client.hpp>

#include "benchmarks/command.hpp"
#include "benchmarks/local_site.hpp"
#include "benchmarks/swarm/holder.hpp"
#include "benchmarks/swarm/lease_client.hpp"

namespace sublet::bench {
namespace {

using namespace std::chrono_literals;

constexpr auto start_max = 300s;
constexpr auto restart_max = 120s;
constexpr auto retry_pause = 2ms;
constexpr std::size_t holder_connections = 32;
constexpr std::uint32_t ready_each = 4;  // Workers of a node that wait for a lease.

double seconds_since(TimePoint start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

/// From the start of the manager to its word that it is ready, and to a lease.
class Comeback : private Flow::Owner {
 public:
  Comeback(Loop& loop, const Target& target, Swarm& swarm, const std::string& request)
      : loop_(loop), swarm_(swarm), request_(request), flow_(loop, target, *this) {}

  [[nodiscard]] bool wait() {
    started_ = SteadyClock::now();
    ask();
    return loop_.run([this] { return granted_ms > 0; }, started_ + restart_max);
  }

  double ready_ms = 0;
  double granted_ms = 0;

 private:
  void ask() { flow_.send(ready_ms > 0 ? request_ : http_request("GET /readyz")); }
  void ask_later() {
    loop_.at(SteadyClock::now() + retry_pause, [this] { ask(); });
  }
  void on_lost(Flow&) override { ask_later(); }
  void on_reply(Flow&, unsigned status, std::string_view body) override {
    if (ready_ms <= 0 && status == 200) {
      ready_ms = 1e3 * seconds_since(started_);
      return ask();
    }
    if (status != 201) return ask_later();
    granted_ms = 1e3 * seconds_since(started_);
    take_grant(swarm_, body);
  }

  Loop& loop_;
  Swarm& swarm_;
  std::string request_;
  Flow flow_;
  TimePoint started_;
};

class Load {
 public:
  Load(const ScaleOptions& options, Manager& manager, std::uint32_t nodes)
      : options_(options),
        manager_(manager),
        target_(Target::parse(manager.url())),
        shape_{.cores = options.leases / nodes + 1 + 4 * ready_each, .ready = ready_each, .birth = 100ms},
        request_(lease_request("echo@1", std::uint64_t{1000} * options.ttl_s)),
        swarm_(loop_, target_, shape_, nodes),
        holder_(loop_, target_, swarm_, holder_connections, request_, std::uint64_t{1000} * options.ttl_s),
        prober_(loop_, target_, swarm_, times_, request_,
                std::chrono::nanoseconds(1s) / std::max(options.probes, 1U)) {}

  void fill(ScaleReport& report) {
    const TimePoint started = SteadyClock::now();
    if (!swarm_.start(started + start_max)) {
      throw std::runtime_error("only " + std::to_string(swarm_.registered()) + " nodes registered in time");
    }
    report.register_s = seconds_since(started);
    const TimePoint registered = SteadyClock::now();
    if (!holder_.acquire(options_.leases, registered + start_max)) {
      throw std::runtime_error("only " + std::to_string(holder_.held()) +
                               " leases were granted in time: " + holder_.counts().refusal);
    }
    report.fill_s = seconds_since(registered);
    if (!swarm_.settle(SteadyClock::now() + start_max)) throw std::runtime_error("the nodes found no rest");
    prober_.start();
    loop_.run_for(2s);  // What the burst has left behind is no steady load.
  }

  ScaleWindow watch() {
    swarm_.counts() = {};
    holder_.counts() = {};
    times_.clear();
    const pid_t process = manager_.process().pid();
    const auto manager_before = cpu_time(process);
    const auto bench_before = cpu_time(getpid());
    const TimePoint started = SteadyClock::now();
    loop_.run_for(std::chrono::seconds(options_.seconds));
    const double seconds = seconds_since(started);
    const MemoryUse memory = memory_use(process);
    const std::vector<float>& heartbeats = swarm_.counts().heartbeat_us;
    return {
        .manager_cpu = std::chrono::duration<double>(cpu_time(process) - manager_before).count() / seconds,
        .bench_cpu = std::chrono::duration<double>(cpu_time(getpid()) - bench_before).count() / seconds,
        .heartbeats_per_second = static_cast<double>(heartbeats.size()) / seconds,
        .heartbeat_p99_us = percentile({heartbeats.begin(), heartbeats.end()}, 0.99),
        .renewals_per_second = static_cast<double>(holder_.counts().renewed) / seconds,
        .renewal_p99_us = percentile(holder_.counts().renew_us, 0.99),
        .probes = times_.grant_us.size(),
        .grant_p50_us = percentile(times_.grant_us, 0.5),
        .grant_p99_us = percentile(times_.grant_us, 0.99),
        .release_p50_us = percentile(times_.release_us, 0.5),
        .release_p99_us = percentile(times_.release_us, 0.99),
        .rss_bytes = memory.rss_bytes,
        .pss_bytes = memory.pss_bytes};
  }

  void restart(ScaleReport& report) {
    manager_.process().kill();
    const std::uint64_t registered = swarm_.counts().registered;
    const std::uint64_t held = holder_.held();
    manager_.spawn();
    Comeback comeback(loop_, target_, swarm_, request_);
    if (!comeback.wait()) throw std::runtime_error("the manager did not come back");
    report.ready_ms = comeback.ready_ms;
    report.first_grant_ms = comeback.granted_ms;
    // Long enough for each lease to be renewed once, and for each node to be found silent.
    loop_.run_for(std::chrono::seconds(options_.ttl_s / 2 + 10));
    report.registered_again = swarm_.counts().registered - registered;
    report.leases_lost = held - holder_.held();
  }

 private:
  const ScaleOptions& options_;
  Manager& manager_;
  Target target_;
  Loop loop_;
  NodeShape shape_;
  std::string request_;
  Swarm swarm_;
  LeaseTimes times_;
  LeaseHolder holder_;
  LeaseClient prober_;
};

/// This takes minutes.
void tell(const char* step) {
  std::fprintf(stderr, "sublet-bench: %s\n", step);
}

std::uint64_t bytes_below(const std::filesystem::path& directory) {
  std::uint64_t bytes = 0;
  std::error_code gone;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory, gone)) {
    if (entry.is_regular_file(gone)) bytes += entry.file_size(gone);
  }
  return bytes;
}

}  // namespace

ScaleReport measure_scale(const ScaleOptions& options) {
  ScaleReport report;
  const std::uint64_t files = raise_open_files(std::uint64_t{2} * options.nodes + files_besides);
  if (files <= files_besides + 1) throw std::runtime_error("the limit of open files allows no node at all");
  report.nodes =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(options.nodes, (files - files_besides) / 2));
  std::optional<TemporaryDirectory> temporary;
  std::filesystem::path directory = options.state_dir;
  if (directory.empty()) directory = temporary.emplace("/var/tmp").path();  // /tmp often lies in memory.
  std::filesystem::create_directories(directory);
  Manager manager(directory);
  try {
    report.state_on = file_system_of(directory);
    Site::connect(manager.url()).value().deploy("echo", "1", function_module("echo")).value();
    Load site(options, manager, report.nodes);
    tell("registering nodes and granting leases");
    site.fill(report);
    tell("measuring");
    report.before = site.watch();
    report.state_bytes = bytes_below(directory);
    tell("killing the manager and watching it come back");
    site.restart(report);
    tell("measuring again");
    report.after = site.watch();
    return report;
  } catch (const std::exception& error) {
    throw std::runtime_error(error.what() + std::string("\n--- manager.log\n") + tail_of(manager.log()));
  }
}

}  // namespace sublet::bench
