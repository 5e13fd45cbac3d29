#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <random>

namespace sublet::client {

/// Pauses between attempts: doubling up to a bound, each cut by a random part of up to a half, so that
/// many clients that lost one manager do not come back in step.
class Backoff {
 public:
  Backoff(std::chrono::milliseconds first, std::chrono::milliseconds most, std::uint32_t seed)
      : first_(first), most_(std::max(first, most)), next_(first), random_(seed) {}

  [[nodiscard]] std::chrono::milliseconds next() {
    const auto pause = next_;
    next_ = std::min(most_, next_ * 2);
    std::uniform_int_distribution<std::int64_t> cut(0, pause.count() / 2);
    return pause - std::chrono::milliseconds(cut(random_));
  }
  void reset() noexcept { next_ = first_; }

 private:
  std::chrono::milliseconds first_;
  std::chrono::milliseconds most_;
  std::chrono::milliseconds next_;
  std::minstd_rand random_;
};

}  // namespace sublet::client
