#pragma once

#include "runtime/base/clock.hpp"

namespace sublet {

/// How long one that waits polls before it sleeps. A wait of many times the most that it may poll was polled
/// for in vain, and halves the window; one that ends within that most restores it whole. So polling goes on
/// while it costs little beside the wait, fades where it does not, and comes back with the first quick
/// answer. (The idea is that of the halt-polling window in Linux's KVM.)
class HotWindow {
 public:
  using Duration = SteadyClock::duration;

  HotWindow() noexcept = default;
  explicit HotWindow(Duration most) noexcept : most_(most), now_(most) {}

  [[nodiscard]] Duration now() const noexcept { return now_; }
  /// After a wait that ended asleep, of its whole length. Others need not be told.
  void waited(Duration whole) noexcept {
    if (whole <= most_) {
      now_ = most_;
    } else if (whole > in_vain * most_) {
      now_ /= 2;
    }
  }

 private:
  static constexpr int in_vain = 8;

  Duration most_{0};
  Duration now_{0};
};

}  // namespace sublet
