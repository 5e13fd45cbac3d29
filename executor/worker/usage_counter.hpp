#pragma once

#include <atomic>
#include <cstdint>

#include "executor/local/usage_page.hpp"
#include "runtime/base/clock.hpp"

namespace sublet::worker {

/// Counts into the page that the agent reads: some plain stores, no lock, no read of what lies there. All
/// times are the caller's, who has read the clock for itself. One thread at a time.
class UsageCounter {
 public:
  explicit UsageCounter(local::UsageRecord& page) noexcept : page_(page) {}

  /// From `now` on the worker polls: it has just started or woken.
  void woke(TimePoint now) noexcept { mark_ = now; }
  /// It has polled until `now`, and goes on or goes to sleep.
  void polled(TimePoint now) noexcept {
    hot_ns_ += since_mark(now);
    store(page_.hot_ns, hot_ns_);
  }
  void call_begins(TimePoint now) noexcept {
    polled(now);
    store(page_.calls_started, ++calls_started_);
  }
  void call_returned(TimePoint now) noexcept {
    store(page_.calls, ++calls_);
    call_cut(now);
  }
  /// The running call goes on: should the process end now, its time until `now` is counted.
  void call_goes_on(TimePoint now) noexcept {
    store(page_.execution_ns, execution_ns_ + static_cast<std::uint64_t>((now - mark_).count()));
  }
  /// The running call will never return: its time counts, it does not.
  void call_cut(TimePoint now) noexcept {
    execution_ns_ += since_mark(now);
    store(page_.execution_ns, execution_ns_);
  }

 private:
  [[nodiscard]] std::uint64_t since_mark(TimePoint now) noexcept {
    const TimePoint before = mark_;
    mark_ = now;
    return static_cast<std::uint64_t>((now - before).count());
  }
  static void store(std::uint64_t& room, std::uint64_t value) noexcept {
    std::atomic_ref<std::uint64_t>(room).store(value, std::memory_order_relaxed);
  }

  local::UsageRecord& page_;
  TimePoint mark_;
  std::uint64_t calls_started_ = 0;
  std::uint64_t calls_ = 0;
  std::uint64_t execution_ns_ = 0;
  std::uint64_t hot_ns_ = 0;
};

}  // namespace sublet::worker
