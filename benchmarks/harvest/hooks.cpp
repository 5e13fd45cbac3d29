#include "benchmarks/harvest/hooks.hpp"

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <exception>
#include <mutex>
#include <random>
#include <stdexcept>
#include <sublet/client.hpp>
#include <thread>

#include "benchmarks/frame/side.hpp"
#include "benchmarks/harvest/hooked_site.hpp"

namespace sublet::bench::harvest {
namespace {

using namespace std::chrono_literals;
using Hook = HookedSite::Hook;

constexpr auto wait_max = 30s;
constexpr std::uint32_t spin_ms = 60'000;
constexpr auto look_interval = 10ms;

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
  Round(HookedSite& hooked, Site& site, HookTimes& times) : hooked_(hooked), site_(site), times_(times) {}

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
    Buffer input = lease.allocate(sizeof spin_ms).value();
    std::memcpy(input.data(), &spin_ms, sizeof spin_ms);
    Buffer output = lease.allocate(sizeof spin_ms).value();
    const Future running =
        lease.submit(input, output, {.deadline = 2 * std::chrono::milliseconds(spin_ms)}).value();
    hooked_.wait_for(node_, 0, 1);
    times_.prolog_busy_ms.push_back(take_back());
    (void)lease.release();
  }
  void first_call() {
    const auto begun = Clock::now();
    times_.epilog_ms.push_back(milliseconds(hooked_.run(Hook::epilog, node_)));
    Lease lease = lease_of(site_, "echo@1");
    const Buffer input = lease.allocate(sizeof spin_ms).value();
    Buffer output = lease.allocate(sizeof spin_ms).value();
    (void)lease.invoke(input, sizeof spin_ms, output).value();
    times_.first_call_ms.push_back(milliseconds(Clock::now() - begun));
    lease.release().value();
  }

  HookedSite& hooked_;
  Site& site_;
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
        random_(options.gaps.seed * 1'000'003 + number) {
    const double spread = spread_of(options.gaps);
    idle_ = std::lognormal_distribution<double>(std::log(options.gaps.median_s), spread);
    busy_ = std::exponential_distribution<double>(1 / options.busy_s);
    thread_ = std::thread([this] { play(); });
  }
  Jobs(const Jobs&) = delete;
  Jobs& operator=(const Jobs&) = delete;
  ~Jobs() {
    if (thread_.joinable()) thread_.join();
  }

  /// The node holds no job now. Any thread.
  [[nodiscard]] bool idle() const noexcept { return is_idle_.load(); }
  [[nodiscard]] const std::string& node() const noexcept { return node_; }
  // After finish().
  void finish() {
    thread_.join();
    if (failed_) std::rethrow_exception(failed_);
  }
  [[nodiscard]] std::uint64_t gaps() const noexcept { return gaps_; }
  [[nodiscard]] const std::vector<double>& prolog_ms() const noexcept { return prolog_ms_; }

 private:
  void play() noexcept {
    try {
      while (pass(busy_(random_))) {
        ++gaps_;
        is_idle_ = true;
        (void)hooked_.run(Hook::epilog, node_);
        const bool goes_on = pass(idle_(random_));
        is_idle_ = false;
        prolog_ms_.push_back(milliseconds(hooked_.run(Hook::prolog, node_)));
        if (!goes_on) return;
      }
    } catch (...) {
      failed_ = std::current_exception();
      is_idle_ = false;
    }
  }
  /// False when the replay's end has come first.
  [[nodiscard]] bool pass(double time_s) const {
    const auto until =
        Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(time_s));
    std::this_thread::sleep_until(std::min(until, end_));
    return until < end_;
  }

  const HookedSite& hooked_;
  std::string node_;
  Clock::time_point end_;
  std::mt19937_64 random_;
  std::lognormal_distribution<double> idle_;
  std::exponential_distribution<double> busy_;
  std::atomic<bool> is_idle_{false};
  std::uint64_t gaps_ = 0;
  std::vector<double> prolog_ms_;
  std::exception_ptr failed_;
  std::thread thread_;
};

}  // namespace

HookTimes measure_hooks(unsigned rounds, unsigned cores, unsigned grace_ms) {
  HookedSite hooked(1, cores, grace_ms);
  Site site = Site::connect(hooked.url()).value();
  for (const char* function : {"echo", "spin"}) site.deploy(function, "1", function_module(function)).value();
  HookTimes warm_up;
  HookTimes times;
  try {
    for (unsigned round = 0; round <= rounds; ++round)
      Round(hooked, site, round == 0 ? warm_up : times).run();
  } catch (const std::exception& error) {
    throw std::runtime_error(error.what() + std::string("\n") + hooked.logs());
  }
  return times;
}

LiveSurface replay_live(const LiveOptions& options) {
  HookedSite hooked(options.nodes, options.cores, options.grace_ms);
  const auto begun = Clock::now();
  const auto end = begun + std::chrono::duration_cast<Clock::duration>(
                               std::chrono::duration<double>(60 * options.minutes));
  std::vector<std::unique_ptr<Jobs>> all;
  for (std::size_t number = 0; number < hooked.nodes().size(); ++number)
    all.push_back(std::make_unique<Jobs>(hooked, options, number, end));
  LiveSurface found;
  std::uint64_t looks = 0;
  // What was seen at a look counts for the time since the one before.
  for (auto before = Clock::now(); before < end; ++looks) {
    std::this_thread::sleep_for(look_interval);
    auto workers = hooked.workers();
    const auto now = Clock::now();
    for (const auto& jobs : all) {
      if (!jobs->idle()) continue;
      const auto [ready, leased] = workers[jobs->node()];
      found.surface.idle_s += seconds(now - before);
      if (ready + leased > 0) found.surface.lent_s += seconds(now - before);
    }
    before = now;
  }
  found.looks_per_second = static_cast<double>(looks) / seconds(Clock::now() - begun);
  for (const auto& jobs : all) {
    jobs->finish();
    found.surface.gaps += jobs->gaps();
    found.prolog_ms.insert(found.prolog_ms.end(), jobs->prolog_ms().begin(), jobs->prolog_ms().end());
  }
  return found;
}

}  // namespace sublet::bench::harvest
