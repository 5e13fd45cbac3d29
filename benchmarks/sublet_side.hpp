#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <sublet/client.hpp>

#include "benchmarks/frame/side.hpp"

namespace sublet::bench {

/// Calls of the echo function under one lease.
class SubletSide final : public Side {
 public:
  /// `lease` outlives it.
  explicit SubletSide(Lease& lease) : lease_(lease) {}

  std::string name() const override { return "Sublet"; }
  /// Throws std::exception, also when what comes back is not what was sent.
  std::chrono::nanoseconds run(const Plan& plan, Histogram& times) override;

 private:
  std::chrono::nanoseconds run_one(const Plan& plan, Histogram& times);
  std::chrono::nanoseconds run_window(const Plan& plan, Histogram& times);

  Lease& lease_;
};

}  // namespace sublet::bench
