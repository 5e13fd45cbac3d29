#pragma once

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <stdexcept>

#include "benchmarks/frame/side.hpp"

namespace sublet::bench {

/// Polls `attempt` until it is true. After `hot` of vain polling it calls `sleep`, which waits on a
/// descriptor for at most sleep_max, and polls again: the way in which Sublet's own ends wait. Throws
/// std::runtime_error after silent_max: the other end has died.
template <typename Attempt, typename Sleep>
void await(std::chrono::microseconds hot, const Attempt& attempt, const Sleep& sleep) {
  constexpr std::uint32_t polls_per_look = 16;  // A look at the clock costs as much as a poll of memory.
  constexpr std::chrono::seconds silent_max{20};
  Clock::time_point begun{};
  Clock::time_point idle_since{};
  for (std::uint32_t poll = 1;; ++poll) {
    if (attempt()) return;
    if (poll % polls_per_look != 0) continue;
    const auto now = Clock::now();
    if (begun == Clock::time_point{}) begun = idle_since = now;
    if (now - begun > silent_max) throw std::runtime_error("the other end of a baseline is silent");
    if (now - idle_since < hot) continue;
    sleep();
    idle_since = Clock::now();
  }
}

/// Waits until the descriptor is readable, or what else `events` of poll(2) says, at most a second.
void sleep_on(int descriptor, short events = POLLIN);

}  // namespace sublet::bench
