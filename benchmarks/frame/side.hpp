#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "benchmarks/frame/histogram.hpp"

namespace sublet::bench {

using Clock = std::chrono::steady_clock;

/// What one side does in one round; a plain value, which also crosses to peers.
struct Plan {
  std::size_t bytes = 0;               ///< Of each message; the answer is as large.
  std::uint32_t warm_up = 0;           ///< Messages before those that are timed.
  std::uint32_t calls = 0;             ///< Messages that are timed.
  std::uint32_t window = 1;            ///< Messages in flight.
  std::chrono::microseconds hot{0};    ///< How long both ends poll before they sleep.
  std::chrono::microseconds pause{0};  ///< Before each message, with nothing in flight.

  [[nodiscard]] std::uint32_t messages() const noexcept { return warm_up + calls; }
};

/// One of those that are compared. Between rounds its processes sleep, so that they take no core from
/// the other sides.
class Side {
 public:
  Side() = default;
  Side(const Side&) = delete;
  Side& operator=(const Side&) = delete;
  virtual ~Side() = default;

  [[nodiscard]] virtual std::string name() const = 0;
  /// Runs one round and adds each timed message's time. Returns how long the timed ones took together.
  /// Blocks. Throws std::exception.
  virtual std::chrono::nanoseconds run(const Plan& plan, Histogram& times) = 0;
};

/// Keeps the core awake without touching what is measured.
inline void spin_for(std::chrono::nanoseconds time) noexcept {
  const auto end = Clock::now() + time;
  while (Clock::now() < end) {
  }
}

/// Runs `call` for a round with one message in flight: the loop of every side.
template <typename Call>
std::chrono::nanoseconds time_calls(const Plan& plan, Histogram& times, const Call& call) {
  for (std::uint32_t i = 0; i < plan.warm_up; ++i) {
    if (plan.pause.count() > 0) spin_for(plan.pause);
    call();
  }
  std::chrono::nanoseconds all{0};
  auto started = Clock::now();
  for (std::uint32_t i = 0; i < plan.calls; ++i) {
    if (plan.pause.count() > 0) {
      spin_for(plan.pause);
      started = Clock::now();
    }
    call();
    const auto ended = Clock::now();  // One look at the clock a call: the next one starts here.
    times.add(ended - started);
    all += ended - started;
    started = ended;
  }
  return all;
}

}  // namespace sublet::bench
