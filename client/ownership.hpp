#pragma once

#include <sched.h>

#include <atomic>

#include "runtime/base/clock.hpp"

namespace sublet::client {

/// Who may touch a lease's data path now: the user's thread or the keeper. Holders never block and never
/// sleep, so that the other spins briefly; uncontended it costs one atomic exchange.
class Ownership {
 public:
  void lock() noexcept {
    for (unsigned spin = 1; held_.exchange(true, std::memory_order_acquire); ++spin) {
      cpu_relax();
      if (spin % spins_before_yield == 0) ::sched_yield();  // The holder may have been preempted.
    }
  }
  void unlock() noexcept { held_.store(false, std::memory_order_release); }

 private:
  static constexpr unsigned spins_before_yield = 64;
  std::atomic<bool> held_{false};
};

}  // namespace sublet::client
