#pragma once

#include <chrono>
#include <string>

#include "runtime/base/clock.hpp"
#include "runtime/lease/time.hpp"

namespace sublet::manager {

/// The site's time: the machine's monotonic clock plus what makes it Unix time at the manager's first
/// start. The wall clock is read once in each boot of the machine, so that its jumps move no lease.
class SiteClock {
 public:
  explicit SiteClock(std::chrono::nanoseconds offset) noexcept : offset_(offset) {}

  /// @param same_boot The clock of an earlier manager in the same boot goes on.
  /// @param earlier   Its offset.
  /// @param last      Time never runs behind this, whatever the wall clock says after a boot.
  [[nodiscard]] static SiteClock resume(bool same_boot, std::chrono::nanoseconds earlier, lease::Time last,
                                        lease::Time wall, TimePoint steady) noexcept {
    const std::chrono::nanoseconds since_boot = steady.time_since_epoch();
    if (same_boot) return SiteClock(std::max(earlier, last.time_since_epoch() - since_boot));
    return SiteClock(std::max(wall, last).time_since_epoch() - since_boot);
  }

  [[nodiscard]] lease::Time at(TimePoint steady) const noexcept {
    return lease::Time(offset_ + steady.time_since_epoch());
  }
  [[nodiscard]] std::chrono::nanoseconds offset() const noexcept { return offset_; }

 private:
  std::chrono::nanoseconds offset_;
};

}  // namespace sublet::manager
