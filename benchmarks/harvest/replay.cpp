#include "benchmarks/harvest/replay.hpp"

#include <algorithm>
#include <cmath>
#include <random>

namespace sublet::bench::harvest {
namespace {

constexpr double day_s = 86'400;
constexpr double normal_quartile = 0.674489750196082;
constexpr double ms_a_second = 1000;

double positive(double seconds) {
  return std::max(seconds, 0.0);
}

/// A gap that has begun, and the pilot in it.
struct Open {
  Gap gap;
  double pilot_end_s = 0;
};

/// The pilots that wait, by their place among the lengths.
class Queue {
 public:
  Queue(const ReplayOptions& options, const std::vector<double>& lengths_s)
      : options_(options), lengths_s_(lengths_s), waiting_(lengths_s.size(), options.queued) {}

  void replenish(double now_s) {
    if (now_s < filled_s_ + options_.replenish_s) return;
    filled_s_ = now_s;
    std::fill(waiting_.begin(), waiting_.end(), options_.queued);
  }
  /// The length of the pilot that Slurm starts; 0 when none waits.
  double take(double left_s) {
    std::size_t chosen = waiting_.size();
    for (std::size_t i = 0; i < waiting_.size(); ++i) {
      if (waiting_[i] == 0) continue;
      chosen = i;
      if (lengths_s_[i] <= left_s) break;
    }
    if (chosen == waiting_.size()) return 0;
    --waiting_[chosen];
    return lengths_s_[chosen];
  }

 private:
  const ReplayOptions& options_;
  const std::vector<double>& lengths_s_;
  std::vector<unsigned> waiting_;
  double filled_s_ = 0;
};

}  // namespace

double spread_of(const ReplayOptions& options) noexcept {
  return std::log(options.quartile_high_s / options.quartile_low_s) / (2 * normal_quartile);
}

std::vector<Gap> make_gaps(const ReplayOptions& options) {
  std::mt19937_64 random(options.seed);
  const double spread = spread_of(options);
  std::lognormal_distribution<double> idle(std::log(options.median_s), spread);
  const double idle_mean_s = options.median_s * std::exp(spread * spread / 2);
  std::exponential_distribution<double> busy(1 / (idle_mean_s * (100 / options.idle_nodes_percent - 1)));
  std::bernoulli_distribution planned(options.planned_percent / 100);
  const double end_s = options.days * day_s;
  std::vector<Gap> gaps;
  for (unsigned node = 0; node < options.nodes; ++node) {
    for (double now_s = busy(random); now_s < end_s;) {
      const double until_s = std::min(now_s + idle(random), end_s);
      gaps.push_back({now_s, until_s, planned(random)});
      now_s = until_s + busy(random);
    }
  }
  std::sort(gaps.begin(), gaps.end(), [](const Gap& a, const Gap& b) { return a.begin_s < b.begin_s; });
  return gaps;
}

Surface replay_hooks(const ReplayOptions& options, const std::vector<Gap>& gaps) {
  Surface surface{.gaps = gaps.size()};
  for (const Gap& gap : gaps) {
    const double idle_s = gap.end_s - gap.begin_s;
    const double lost_ms = options.donate_ms + (gap.planned ? options.notice_ms : 0);
    surface.idle_s += idle_s;
    surface.lent_s += positive(idle_s - lost_ms / ms_a_second);
  }
  return surface;
}

Surface replay_pilots(const ReplayOptions& options, const std::vector<Gap>& gaps,
                      const std::vector<double>& lengths_s) {
  Surface surface{.gaps = gaps.size()};
  for (const Gap& gap : gaps) surface.idle_s += gap.end_s - gap.begin_s;
  Queue queue(options, lengths_s);
  std::vector<Open> open;
  auto next = gaps.begin();
  for (double now_s = 0; next != gaps.end() || !open.empty(); now_s += options.pass_s) {
    for (; next != gaps.end() && next->begin_s <= now_s; ++next) open.push_back({*next, 0});
    std::erase_if(open, [&](const Open& each) { return each.gap.end_s <= now_s; });
    queue.replenish(now_s);
    for (Open& each : open) {
      if (each.pilot_end_s > now_s) continue;
      const double left_s = each.gap.end_s - now_s;
      const double length_s = queue.take(each.gap.planned ? left_s : lengths_s.front());
      if (length_s <= 0) break;
      ++surface.pilots;
      each.pilot_end_s = now_s + length_s;
      // Before its limit a pilot is closed; a job that preempts it comes without notice, unless it was
      // planned.
      const bool told = length_s <= left_s || each.gap.planned;
      const double lost_ms = options.pilot_start_ms + (told ? options.notice_ms : 0);
      surface.lent_s += positive(std::min(length_s, left_s) - lost_ms / ms_a_second);
    }
  }
  return surface;
}

}  // namespace sublet::bench::harvest
