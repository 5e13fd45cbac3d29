#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace sublet::bench {

struct InvokeOptions {
  std::string transport = "tcp";
  std::vector<std::size_t> sizes;  ///< Bytes of input, and of output.
  std::uint32_t rounds = 0;        ///< Each runs both sides, so that a change of the machine meets both.
  std::uint32_t calls = 0;         ///< In each round, on each side.
};

/// Of one size. Microseconds of one round trip.
struct InvokeFigures {
  std::size_t bytes = 0;
  double sublet_median_us = 0;  ///< Median over rounds of the round's median; so for all.
  double sublet_p99_us = 0;
  double socket_median_us = 0;
  double socket_p99_us = 0;
  double ratio_median = 0;  ///< Median over rounds of (Sublet's median / the socket's median).
  double ratio_low = 0;     ///< First and third quartile.
  double ratio_high = 0;
};

/// Measures calls of an echo function on one worker of this machine against the same bytes over a plain
/// TCP socket. Starts and ends a manager, an agent and a worker. Throws std::exception.
std::vector<InvokeFigures> measure_invoke(const InvokeOptions& options);

}  // namespace sublet::bench
