#include "benchmarks/harvest/hooks.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <random>
#include <stdexcept>
#include <stop_token>
#include <sublet/client.hpp>
#include <thread>
#include <utility>

#include "benchmarks/frame/side.hpp"
#include "benchmarks/harvest/hooked_site.hpp"

namespace sublet::bench::harvest {
namespace {

using namespace std::chrono_literals;
using Hook = HookedSite::Hook;

constexpr auto wait_max = 30s;
constexpr std::uint32_t beyond_grace_ms = 30'000;
constexpr double longest_s = 1e8;  // A clock counts as far.
constexpr auto look_interval = 10ms;
constexpr unsigned warm_max = 16;  // So many idle workers an agent keeps at most, on a larger node, too.

double milliseconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

double seconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

/// A lease of one worker, as soon as there is any. Throws when none comes.
Lease lease_of(Site& site, const std::string& function) {
  const auto end = Clock::now() + wait_max;
  for (;;) {
    auto lease = site.lease({.function = function, .workers = 1, .wait = wait_max, .in_flight = 1});
    if (lease.ok() || lease.error().code() != Errc::no_capacity || Clock::now() > end)
      return std::move(lease).value();
  }
}

/// One round of all cases on one node, which is taken back at the end.
class Round {
 public:
  Round(HookedSite& hooked, Site& site, unsigned grace_ms, HookTimes& times)
      : hooked_(hooked), site_(site), spin_ms_(grace_ms + beyond_grace_ms), times_(times) {}

  void run() {
    times_.nothing_ms.push_back(milliseconds(hooked_.run_nothing()));
    times_.prolog_undonated_ms.push_back(take_back());
    donate();
    times_.prolog_idle_ms.push_back(take_back());
    donate();
    busy();
    first_call();
    take_back();
  }

 private:
  double take_back() { return milliseconds(hooked_.run(Hook::prolog, node_)); }
  void donate() {
    (void)hooked_.run(Hook::epilog, node_);
    hooked_.wait_for(node_, 1, 0);
  }
  void busy() {
    Lease lease = lease_of(site_, "spin@1");
    Buffer input = lease.allocate(sizeof spin_ms_).value();
    std::memcpy(input.data(), &spin_ms_, sizeof spin_ms_);
    Buffer output = lease.allocate(sizeof spin_ms_).value();
    const Future running =
        lease.submit(input, output, {.deadline = 2 * std::chrono::milliseconds(spin_ms_)}).value();
    hooked_.wait_for(node_, 0, 1);
    times_.prolog_busy_ms.push_back(take_back());
    (void)lease.release();
  }
  void first_call() {
    const auto begun = Clock::now();
    times_.epilog_ms.push_back(milliseconds(hooked_.run(Hook::epilog, node_)));
    Lease lease = lease_of(site_, "echo@1");
    const Buffer input = lease.allocate(sizeof spin_ms_).value();
    Buffer output = lease.allocate(sizeof spin_ms_).value();
    (void)lease.invoke(input, sizeof spin_ms_, output).value();
    times_.first_call_ms.push_back(milliseconds(Clock::now() - begun));
    lease.release().value();
  }

  HookedSite& hooked_;
  Site& site_;
  std::uint32_t spin_ms_;
  HookTimes& times_;
  std::string node_ = hooked_.nodes().front();
};

/// Plays the jobs of one node, each in a process of its own as far as the node can tell.
class Jobs {
 public:
  Jobs(const HookedSite& hooked, const LiveOptions& options, std::size_t number, Clock::time_point end)
      : hooked_(hooked),
        node_(hooked.nodes()[number]),
        end_(end),
        random_(options.gaps.seed * 1'000'003 + number),
        idle_(std::log(options.gaps.median_s), spread_of(options.gaps)),
        busy_(1 / options.busy_s),
        thread_([this](const std::stop_token& stop) { play(stop); }) {}

  /// The node holds no job now. Any thread.
  [[nodiscard]] bool idle() const noexcept { return is_idle_; }
  [[nodiscard]] bool over() const noexcept { return is_over_; }
  [[nodiscard]] const std::string& node() const noexcept { return node_; }
  /// Its end comes after the next prolog.
  void stop_soon() noexcept { thread_.request_stop(); }
  /// Waits for the end. Throws what a hook has thrown.
  void finish() {
    if (thread_.joinable()) thread_.join();
    if (failed_) std::rethrow_exception(failed_);
  }
  // After finish().
  [[nodiscard]] std::uint64_t gaps() const noexcept { return gaps_; }
  [[nodiscard]] const std::vector<double>& prolog_ms() const noexcept { return prolog_ms_; }

 private:
  void play(const std::stop_token& stop) noexcept {
    try {
      while (pass(stop, busy_(random_))) {
        ++gaps_;
        is_idle_ = true;
        (void)hooked_.run(Hook::epilog, node_);
        const bool goes_on = pass(stop, idle_(random_));
        is_idle_ = false;
        prolog_ms_.push_back(milliseconds(hooked_.run(Hook::prolog, node_)));
        if (!goes_on) break;
      }
    } catch (...) {
      failed_ = std::current_exception();
      is_idle_ = false;
    }
    is_over_ = true;
  }
  /// False when the replay's end has come first.
  [[nodiscard]] bool pass(const std::stop_token& stop, double time_s) {
    const std::chrono::duration<double> time(std::min(time_s, longest_s));
    const auto until = Clock::now() + std::chrono::duration_cast<Clock::duration>(time);
    std::unique_lock lock(mutex_);
    stopped_.wait_until(lock, stop, std::min(until, end_), [] { return false; });
    return until < end_ && !stop.stop_requested();
  }

  const HookedSite& hooked_;
  std::string node_;
  Clock::time_point end_;
  std::mt19937_64 random_;
  std::lognormal_distribution<double> idle_;
  std::exponential_distribution<double> busy_;
  std::atomic<bool> is_idle_{false};
  std::atomic<bool> is_over_{false};
  std::uint64_t gaps_ = 0;
  std::vector<double> prolog_ms_;
  std::exception_ptr failed_;
  std::mutex mutex_;
  std::condition_variable_any stopped_;
  std::jthread thread_;  ///< Last: it uses all that stands above.
};

/// All nodes' jobs: whatever ends this, they are told at once, and then waited for.
struct Cluster {
  Cluster() = default;
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;
  ~Cluster() {
    for (const auto& jobs : nodes) jobs->stop_soon();
  }
  std::vector<std::unique_ptr<Jobs>> nodes;
};

/// Adds what one look has seen, for the time since the one before. Throws when a node's jobs have failed.
void look(HookedSite& hooked, const Cluster& cluster, unsigned cores, Clock::time_point& before,
          Surface& surface) {
  auto workers = hooked.workers();
  const auto now = Clock::now();
  const double passed_s = seconds(now - std::exchange(before, now));
  for (const auto& jobs : cluster.nodes) {
    if (jobs->over()) jobs->finish();
    if (!jobs->idle()) continue;
    const auto [ready, leased] = workers[jobs->node()];
    surface.idle_s += passed_s;
    surface.lent_s +=
        passed_s * std::min(1.0, static_cast<double>(ready + leased) / std::min(cores, warm_max));
  }
}

}  // namespace

HookTimes measure_hooks(unsigned rounds, unsigned cores, unsigned grace_ms) {
  HookedSite hooked(1, cores, grace_ms);
  Site site = Site::connect(hooked.url()).value();
  for (const char* function : {"echo", "spin"}) site.deploy(function, "1", function_module(function)).value();
  HookTimes warm_up;
  HookTimes times;
  try {
    for (unsigned round = 0; round <= rounds; ++round)
      Round(hooked, site, grace_ms, round == 0 ? warm_up : times).run();
  } catch (const std::exception& error) {
    throw std::runtime_error(error.what() + std::string("\n") + hooked.logs());
  }
  return times;
}

LiveSurface replay_live(const LiveOptions& options) {
  HookedSite hooked(options.nodes, options.cores, options.grace_ms);
  try {
    const auto begun = Clock::now();
    const std::chrono::duration<double> time(60 * options.minutes);
    const auto end = begun + std::chrono::duration_cast<Clock::duration>(time);
    Cluster cluster;
    for (std::size_t number = 0; number < hooked.nodes().size(); ++number)
      cluster.nodes.push_back(std::make_unique<Jobs>(hooked, options, number, end));
    LiveSurface found;
    std::uint64_t looks = 0;
    for (auto before = Clock::now(); before < end; ++looks) {
      std::this_thread::sleep_for(look_interval);
      look(hooked, cluster, options.cores, before, found.surface);
    }
    found.looks_per_second = static_cast<double>(looks) / seconds(Clock::now() - begun);
    for (const auto& jobs : cluster.nodes) {
      jobs->finish();
      found.surface.gaps += jobs->gaps();
      found.prolog_ms.insert(found.prolog_ms.end(), jobs->prolog_ms().begin(), jobs->prolog_ms().end());
    }
    return found;
  } catch (const std::exception& error) {
    throw std::runtime_error(error.what() + std::string("\n") + hooked.logs());
  }
}

}  // namespace sublet::bench::harvest
