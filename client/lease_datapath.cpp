// The user's side of the way of a call: submit, poll, wait. datapath.cpp is what happens under it. While
// work arrives: one uncontended atomic exchange a call or poll, no allocation, no log, no system call.
#include <sched.h>
#include <sys/poll.h>

#include <algorithm>
#include <csignal>
#include <ctime>

#include "client/lease_state.hpp"
#include "runtime/base/limits.hpp"

namespace sublet {

using client::Call;
using client::CallHandle;

namespace {

/// Idle workers are looked at once in so many polls: the keeper does it as well.
constexpr unsigned polls_for_all = 64;
/// A look at the clock costs as much as a poll of shared memory.
constexpr unsigned polls_for_clock = 8;

/// Off the path of what goes well: this allocates.
Error error_of(const Call& call) {
  if (call.signal != 0) {
    const char* const name = sigabbrev_np(static_cast<int>(call.signal));
    return Error(Errc::function_failed, "the function crashed with signal " + std::to_string(call.signal) +
                                            (name == nullptr ? "" : " (SIG" + std::string(name) + ")"));
  }
  return Error(call.error, std::string(call.message.data(), call.message_bytes));
}

}  // namespace

void LeaseState::step(TimePoint now, bool all) noexcept {
  if (now >= expiry) calls.end(Errc::lease_expired);
  calls.progress(now, all);
  if (calls.has_lost() && !keeper_told) {
    keeper_told = true;
    keeper_wakeup.wake();
  }
}

Result<Future> LeaseState::submit(const Buffer& input, std::size_t input_bytes, Buffer& output,
                                  const CallOptions& call) noexcept {
  const bool ours = input.owner_ == this && output.owner_ == this;
  const bool in_time = call.deadline.count() > 0 && call.deadline <= limits::call_deadline_max;
  if (!ours || !in_time || input_bytes > input.size_) return Errc::invalid_argument;
  const TimePoint now = SteadyClock::now();
  const client::CallSpec spec{.entry = call.entry,
                              .input = {input.data_, input_bytes},
                              .output_offset = static_cast<std::uint64_t>(output.data_ - region.data()),
                              .output_capacity = output.size_,
                              .deadline_us = static_cast<std::uint64_t>(call.deadline.count()),
                              .deadline = now + call.deadline,
                              .input_block = input.block_,
                              .output_block = output.block_,
                              .idempotent = call.idempotent};
  ownership.lock();
  if (now >= expiry) calls.end(Errc::lease_expired);
  const Result<CallHandle> handle = calls.submit(spec, now);
  ownership.unlock();
  if (!handle.ok()) return handle.error().code();
  Future future;
  future.owner_ = this;
  future.call_ = handle->index;
  future.generation_ = handle->generation;
  retain();
  return future;
}

void LeaseState::poll() noexcept {
  ownership.lock();
  step(SteadyClock::now(), ++polls_ % polls_for_all == 0);
  ownership.unlock();
}

bool LeaseState::ready(CallHandle handle) noexcept {
  poll();
  ownership.lock();
  const Call* const call = calls.find(handle);
  const bool done = call == nullptr || call->state == Call::State::done;
  ownership.unlock();
  return done;
}

Result<std::size_t> LeaseState::wait(CallHandle handle) noexcept {
  TimePoint now = SteadyClock::now();
  const TimePoint begun = now;
  TimePoint idle_since = now;
  bool slept = false;
  for (unsigned spin = 1;; ++spin) {
    if (spin % polls_for_clock == 0) now = SteadyClock::now();
    ownership.lock();
    step(now, spin % polls_for_all == 0);
    Call* const call = calls.find(handle);
    if (call == nullptr || call->state == Call::State::done) {
      Result<std::size_t> result = call == nullptr ? Result<std::size_t>(Errc::closed) : take(*call);
      ownership.unlock();
      if (slept) hot_.waited(now - begun);
      return result;
    }
    const bool cold = now - idle_since >= hot_.now();
    const TimePoint until = std::min(call->spec.deadline, expiry);
    // Armed under ownership: from then on a poll by the keeper ends in a wake-up.
    owner_asleep = cold && arm();
    const bool armed = owner_asleep;
    ownership.unlock();
    if (armed) {
      sleep(until);
      slept = true;
      now = idle_since = SteadyClock::now();
    } else if (!cold) {
      cpu_relax();
      if (spins_before_yield != 0 && spin % spins_before_yield == 0) ::sched_yield();
    }
  }
}

/// Poll, arm, sleep: only what comes after arming wakes us, and arm() says when something came before.
bool LeaseState::arm() noexcept {
  sleep_set_.clear();
  sleep_set_.push_back({owner_wakeup.descriptor(), POLLIN, 0});
  for (client::WorkerLink& link : calls.links()) {
    if (!link.connected() || (link.busy() == 0 && link.usable())) continue;
    if (!link.connection().arm()) return false;
    sleep_set_.push_back({link.connection().descriptor(), POLLIN, 0});
  }
  return true;
}

void LeaseState::sleep(TimePoint until) noexcept {
  const auto left = std::max(SteadyClock::duration::zero(), until - SteadyClock::now());
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
  const timespec bound{.tv_sec = static_cast<time_t>(seconds.count()),
                       .tv_nsec = static_cast<long>(std::chrono::nanoseconds(left - seconds).count())};
  ::ppoll(sleep_set_.data(), sleep_set_.size(), &bound, nullptr);
  if (sleep_set_.front().revents != 0) owner_wakeup.drain();
  ownership.lock();
  owner_asleep = false;
  ownership.unlock();
}

Result<std::size_t> LeaseState::take(Call& call) noexcept {
  Result<std::size_t> result = static_cast<std::size_t>(call.output_bytes);
  if (!call.ok) result = error_of(call);
  calls.forget(call);
  return result;
}

void LeaseState::cancel(CallHandle handle) noexcept {
  ownership.lock();
  calls.cancel(handle);
  ownership.unlock();
}

void LeaseState::forget(CallHandle handle) noexcept {
  ownership.lock();
  if (Call* const call = calls.find(handle)) calls.forget(*call);
  ownership.unlock();
}

void LeaseState::drop(std::uint32_t block) noexcept {
  ownership.lock();
  calls.blocks().drop(block);
  ownership.unlock();
}

}  // namespace sublet
