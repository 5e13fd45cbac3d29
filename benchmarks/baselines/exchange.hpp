#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "benchmarks/baselines/peer.hpp"
#include "benchmarks/frame/side.hpp"

/// The rounds of a pair whose ends write into each other's memory, on both ends. An End has write(data,
/// bytes, slot), write_last (the same, and nothing follows for a while), wait(hot) for the slot of the next
/// write that came, incoming(slot) and outgoing().
namespace sublet::bench {

template <typename End>
std::chrono::nanoseconds run_window(End& end, const Plan& plan, Histogram& times) {
  std::vector<Clock::time_point> started(plan.window);
  Clock::time_point begun{};
  Clock::time_point ended{};
  std::uint32_t sent = 0;
  const auto send = [&](std::uint32_t slot) {
    started[slot] = Clock::now();
    end.write(end.outgoing(), plan.bytes, slot);
    ++sent;
  };
  while (sent < plan.window && sent < plan.messages()) send(sent);
  for (std::uint32_t done = 0; done < plan.messages(); ++done) {
    const std::uint32_t slot = end.wait(plan.hot);
    ended = Clock::now();
    if (done + 1 == plan.warm_up) begun = ended;
    if (done >= plan.warm_up) times.add(ended - started[slot]);
    if (sent < plan.messages()) send(slot);
  }
  return ended - begun;
}

template <typename End>
std::chrono::nanoseconds run_exchange(End& end, const Control& control, const Plan& plan, Histogram& times) {
  control.send(plan);
  if (plan.window > 1) return run_window(end, plan, times);
  return time_calls(plan, times, [&] {
    end.write(end.outgoing(), plan.bytes, 0);
    (void)end.wait(plan.hot);
  });
}

template <typename End>
[[noreturn]] void serve_exchange(End& end, const Control& control) {
  while (true) {
    const Plan plan = control.receive<Plan>();
    for (std::uint32_t left = plan.messages(); left > 0; --left) {
      const std::uint32_t slot = end.wait(plan.hot);
      if (left > 1) {
        end.write(end.incoming(slot), plan.bytes, slot);
      } else {
        end.write_last(end.incoming(slot), plan.bytes, slot, plan.hot);
      }
    }
  }
}

}  // namespace sublet::bench
