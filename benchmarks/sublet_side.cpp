#include "benchmarks/sublet_side.hpp"

#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

namespace sublet::bench {

std::chrono::nanoseconds SubletSide::run(const Plan& plan, Histogram& times) {
  return plan.window > 1 ? run_window(plan, times) : run_one(plan, times);
}

std::chrono::nanoseconds SubletSide::run_one(const Plan& plan, Histogram& times) {
  Buffer input = lease_.allocate(plan.bytes).value();
  Buffer output = lease_.allocate(plan.bytes).value();
  std::memset(input.data(), 0x5A, plan.bytes);
  std::memset(output.data(), 0, plan.bytes);
  const auto took = time_calls(plan, times, [&] {
    if (lease_.invoke(input, plan.bytes, output).value() != plan.bytes)
      throw std::runtime_error("a wrong size came back");
  });
  if (std::memcmp(input.data(), output.data(), plan.bytes) != 0)
    throw std::runtime_error("wrong bytes came back");
  return took;
}

std::chrono::nanoseconds SubletSide::run_window(const Plan& plan, Histogram& times) {
  struct Call {
    Buffer output;
    Future future;
    Clock::time_point started;
  };
  Buffer input = lease_.allocate(plan.bytes).value();
  std::memset(input.data(), 0x5A, plan.bytes);
  std::vector<Call> calls(plan.window);
  for (Call& call : calls) call.output = lease_.allocate(plan.bytes).value();
  Clock::time_point begun{};
  Clock::time_point ended{};
  std::uint32_t sent = 0;
  for (std::uint32_t done = 0; done < plan.messages(); ++done) {
    for (; sent < plan.messages() && sent < done + plan.window; ++sent) {
      Call& next = calls[sent % plan.window];
      next.started = Clock::now();
      auto future = lease_.submit(input, plan.bytes, next.output);
      if (!future.ok() && future.error().code() == Errc::queue_full && sent > done) break;
      next.future = std::move(future).value();
    }
    Call& oldest = calls[done % plan.window];
    if (oldest.future.wait().value() != plan.bytes) throw std::runtime_error("a wrong size came back");
    ended = Clock::now();
    if (done + 1 == plan.warm_up) begun = ended;
    if (done >= plan.warm_up) times.add(ended - oldest.started);
  }
  for (const Call& call : calls) {
    if (std::memcmp(input.data(), call.output.data(), plan.bytes) != 0)
      throw std::runtime_error("wrong bytes came back");
  }
  return ended - begun;
}

}  // namespace sublet::bench
