#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/clock.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/base/result.hpp"

namespace sublet::client {

inline constexpr std::uint32_t none = 0xFFFF'FFFF;

/// What is needed to send a call, and to send it again elsewhere.
struct CallSpec {
  std::uint32_t entry = 0;
  std::span<const std::byte> input;
  std::uint64_t output_offset = 0;  ///< In the lease's region.
  std::uint64_t output_capacity = 0;
  std::uint64_t deadline_us = 0;
  TimePoint deadline;
  std::uint32_t input_block = 0;
  std::uint32_t output_block = 0;
  bool idempotent = false;
};

/// One call from submit() until its result is taken.
struct Call {
  enum class State : std::uint8_t {
    free,
    waiting,  ///< For a worker with room.
    sent,     ///< It has slot `slot` of link `link`.
    done,     ///< Its final status is known.
  };
  State state = State::free;
  bool observed = true;  ///< Somebody holds its future.
  bool cancel_wanted = false;
  bool cancel_unsent = false;  ///< The connection had no room for the word.
  bool ok = false;
  Errc error = Errc::internal;
  std::uint32_t generation = 0;
  std::uint32_t link = none;
  std::uint32_t slot = none;
  std::uint32_t next = none;  ///< In the list that `state` says: free or waiting.
  std::uint32_t previous = none;
  std::uint64_t output_bytes = 0;
  CallSpec spec;
  std::uint32_t signal = 0;  ///< That the function crashed with.
  std::uint32_t message_bytes = 0;
  std::array<char, limits::message_bytes> message{};
};

/// A future's name of a call; stale after the result was taken.
struct CallHandle {
  std::uint32_t index = none;
  std::uint32_t generation = 0;
};

/// The calls of a lease: a fixed table, so that nothing is allocated on the way. Every call gets
/// exactly one final status: finish() asserts it.
class InFlight {
 public:
  explicit InFlight(std::uint32_t capacity);

  /// A waiting call, not in the queue yet; nullptr when the table is full.
  [[nodiscard]] Call* begin(const CallSpec& spec) noexcept;
  [[nodiscard]] Call* find(CallHandle handle) noexcept;
  [[nodiscard]] Call& at(std::uint32_t index) noexcept { return calls_[index]; }
  [[nodiscard]] std::uint32_t index_of(const Call& call) const noexcept {
    return static_cast<std::uint32_t>(&call - calls_.data());
  }
  [[nodiscard]] CallHandle handle_of(const Call& call) const noexcept {
    return {index_of(call), call.generation};
  }

  void mark_sent(Call& call, std::uint32_t link, std::uint32_t slot) noexcept;
  /// Puts a sent or new call at the end of the queue of those that wait for a worker.
  void wait_for_worker(Call& call) noexcept;
  /// The oldest that waits; nullptr when none does.
  [[nodiscard]] Call* first_waiting() noexcept { return head_ == none ? nullptr : &calls_[head_]; }

  /// The final status. A call that nobody observes is freed at once.
  void finish(Call& call, bool ok, Errc error, std::uint64_t output_bytes) noexcept;
  /// The future was dropped, or has taken its result.
  void forget(Call& call) noexcept;

  /// No later than the first deadline of an unfinished call.
  [[nodiscard]] TimePoint earliest_deadline() const noexcept { return earliest_; }
  /// Calls `overdue(call)` for each unfinished call whose deadline has passed; it must finish it.
  template <typename Overdue>
  void expire(TimePoint now, Overdue&& overdue) {
    earliest_ = TimePoint::max();
    for (Call& call : calls_) {
      if (call.state != Call::State::waiting && call.state != Call::State::sent) continue;
      if (call.spec.deadline <= now) {
        overdue(call);
      } else if (call.spec.deadline < earliest_) {
        earliest_ = call.spec.deadline;
      }
    }
  }
  template <typename Each>
  void for_each_unfinished(Each&& each) {
    for (Call& call : calls_) {
      if (call.state == Call::State::waiting || call.state == Call::State::sent) each(call);
    }
  }

  [[nodiscard]] std::uint32_t unfinished() const noexcept { return unfinished_; }

 private:
  void leave_queue(Call& call) noexcept;
  void free(Call& call) noexcept;

  std::vector<Call> calls_;
  std::uint32_t free_ = none;
  std::uint32_t head_ = none;
  std::uint32_t tail_ = none;
  std::uint32_t unfinished_ = 0;
  TimePoint earliest_ = TimePoint::max();
};

}  // namespace sublet::client
