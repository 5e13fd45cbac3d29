#pragma once

#include <chrono>
#include <cstdint>

namespace sublet {

/// Monotonic time: deadlines, heartbeats, durations. A jump of the wall clock does not touch it.
using SteadyClock = std::chrono::steady_clock;
using TimePoint = SteadyClock::time_point;

/// Wall-clock milliseconds since the Unix epoch: only for what crosses machines (a token's expiry).
[[nodiscard]] inline std::uint64_t unix_time_ms() noexcept {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

/// Tells the core that this is a spin loop.
inline void cpu_relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

}  // namespace sublet
