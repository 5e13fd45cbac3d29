#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "runtime/base/clock.hpp"
#include "runtime/base/limits.hpp"

namespace sublet::agent {

/// The manager's clock, by which leases end, on this machine's monotonic one: no wall clock takes part, so
/// setting one changes nothing. Each answer of the manager says its time and lies between two readings of
/// ours; of the last minute's answers the quickest is believed. Not thread-safe.
class SiteClock {
 public:
  /// An answer with the manager's `time_ms`, asked for at `sent`, here at `received`.
  void heard(TimePoint sent, TimePoint received, std::uint64_t time_ms) {
    const Sample sample{time_of(time_ms), sent, received};
    // The manager has another clock than before (another machine, a new state): believe the one of now.
    if (!samples_.empty() && contradict(samples_.front(), sample)) samples_.clear();
    while (!samples_.empty() && samples_.front().received + window < received) samples_.pop_front();
    // Only one that is quicker than all after it can ever be the quickest.
    while (!samples_.empty() && samples_.back().round_trip() >= sample.round_trip()) samples_.pop_back();
    if (samples_.size() == samples_max) samples_.pop_back();
    samples_.push_back(sample);
  }

  /// When it is `time_ms` at the manager; nothing before it was heard. At most lease_ms_max after `now`:
  /// nothing lasts longer.
  [[nodiscard]] std::optional<TimePoint> when(std::uint64_t time_ms, TimePoint now) const {
    if (samples_.empty()) return std::nullopt;
    const Sample& best = samples_.front();
    const auto middle = best.sent + best.round_trip() / 2;
    const auto ahead = std::clamp<std::chrono::nanoseconds>(time_of(time_ms) - best.time - (now - middle),
                                                            -limits::lease_ms_max, limits::lease_ms_max);
    return now + ahead;
  }

 private:
  using Since = std::chrono::nanoseconds;

  static constexpr std::chrono::seconds window{60};
  static constexpr std::size_t samples_max = 256;
  /// What two good clocks may drift apart within the window, and then some.
  static constexpr std::chrono::milliseconds drift_max{50};
  /// Far beyond any date, and no overflow in nanoseconds.
  static constexpr std::uint64_t time_ms_max = std::uint64_t{1} << 42U;

  struct Sample {
    Since time;
    TimePoint sent;
    TimePoint received;
    [[nodiscard]] std::chrono::nanoseconds round_trip() const { return received - sent; }
  };

  [[nodiscard]] static Since time_of(std::uint64_t time_ms) {
    return std::chrono::milliseconds(std::min(time_ms, time_ms_max));
  }
  /// True when no clock that runs evenly can have given both answers.
  [[nodiscard]] static bool contradict(const Sample& one, const Sample& other) {
    // The manager read its clock between `sent` and `received`, and cut the reading to milliseconds.
    const auto passed_min = other.sent - one.received - drift_max;
    const auto passed_max = other.received - one.sent + drift_max;
    const auto passed = other.time - one.time;
    return passed < passed_min || passed > passed_max;
  }

  std::deque<Sample> samples_;  ///< Slower towards the end.
};

}  // namespace sublet::agent
