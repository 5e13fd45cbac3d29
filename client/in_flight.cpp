#include "client/in_flight.hpp"

#include "runtime/base/assert.hpp"

namespace sublet::client {

InFlight::InFlight(std::uint32_t capacity) : calls_(capacity) {
  for (std::uint32_t index = capacity; index-- > 0;) {
    calls_[index].next = free_;
    free_ = index;
  }
}

Call* InFlight::begin(const CallSpec& spec) noexcept {
  if (free_ == none) return nullptr;
  Call& call = calls_[free_];
  free_ = call.next;
  call.state = Call::State::waiting;
  call.observed = true;
  call.cancel_wanted = false;
  call.cancel_unsent = false;
  ++call.generation;
  call.link = none;
  call.slot = none;
  call.next = none;
  call.previous = none;
  call.spec = spec;
  call.signal = 0;
  call.message_bytes = 0;
  ++unfinished_;
  if (spec.deadline < earliest_) earliest_ = spec.deadline;
  return &call;
}

Call* InFlight::find(CallHandle handle) noexcept {
  if (handle.index >= calls_.size()) return nullptr;
  Call& call = calls_[handle.index];
  const bool current = call.state != Call::State::free && call.generation == handle.generation;
  return current ? &call : nullptr;
}

void InFlight::mark_sent(Call& call, std::uint32_t link, std::uint32_t slot) noexcept {
  SUBLET_ASSERT(call.state == Call::State::waiting);
  leave_queue(call);
  call.state = Call::State::sent;
  call.link = link;
  call.slot = slot;
}

void InFlight::wait_for_worker(Call& call) noexcept {
  SUBLET_ASSERT(call.state == Call::State::sent || call.state == Call::State::waiting);
  call.state = Call::State::waiting;
  call.link = none;
  call.slot = none;
  const std::uint32_t index = index_of(call);
  call.next = none;
  call.previous = tail_;
  (tail_ == none ? head_ : calls_[tail_].next) = index;
  tail_ = index;
}

void InFlight::leave_queue(Call& call) noexcept {
  const std::uint32_t index = index_of(call);
  if (head_ != index && call.previous == none) return;  // It was never queued.
  (call.previous == none ? head_ : calls_[call.previous].next) = call.next;
  (call.next == none ? tail_ : calls_[call.next].previous) = call.previous;
  call.next = none;
  call.previous = none;
}

void InFlight::finish(Call& call, bool ok, Errc error, std::uint64_t output_bytes) noexcept {
  SUBLET_ASSERT(call.state == Call::State::waiting || call.state == Call::State::sent);
  if (call.state == Call::State::waiting) leave_queue(call);
  call.state = Call::State::done;
  call.ok = ok;
  call.error = error;
  call.output_bytes = output_bytes;
  call.link = none;
  call.slot = none;
  --unfinished_;
  if (!call.observed) free(call);
}

void InFlight::forget(Call& call) noexcept {
  SUBLET_ASSERT(call.state != Call::State::free && call.observed);
  call.observed = false;
  if (call.state == Call::State::done) free(call);
}

void InFlight::free(Call& call) noexcept {
  call.state = Call::State::free;
  call.next = free_;
  free_ = index_of(call);
}

}  // namespace sublet::client
