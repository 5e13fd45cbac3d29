#pragma once

#include <chrono>
#include <cstdint>

namespace sublet::lease {

/// The site's time, which the manager tells to all: Unix time at the manager's first start, steady from
/// then on. It never jumps and never runs backwards, also over the manager's restarts.
using Time = std::chrono::sys_time<std::chrono::nanoseconds>;

[[nodiscard]] inline std::uint64_t to_ms(Time time) noexcept {
  return static_cast<std::uint64_t>(
      std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch()).count());
}
[[nodiscard]] inline std::int64_t to_ns(Time time) noexcept {
  return time.time_since_epoch().count();
}
[[nodiscard]] inline Time from_ns(std::int64_t ns) noexcept {
  return Time(std::chrono::nanoseconds(ns));
}

}  // namespace sublet::lease
