#pragma once

#include <memory>
#include <string_view>

#include "runtime/base/result.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::transport::fault {

/// The fault decorator: any backend with faults strewn in, for tests. Its name is
/// "fault:SEED:RULES:BACKEND", for example "fault:7:drop=0.01,delay=0.1/5ms:tcp".
///
/// SEED is a decimal number. RULES are separated by commas and may be empty; a probability P is from 0
/// to 1 and is drawn for each arrival or write of a connection:
///   delay=P/TIME  an arrival, and those behind it, are told TIME later (TIME: 200us, 5ms, 1s)
///   drop=P        an arrival is not told
///   dup=P         an arrival is told twice
///   full=P        a write returns queue_full
///   error=P       a write returns peer_lost and the connection is down
///
/// The same seed gives the n-th connection of a transport the same decisions for its k-th arrival and
/// its k-th write, whatever happens in between.
struct Rules {
  double delay = 0;
  std::chrono::microseconds delay_time{0};
  double drop = 0;
  double duplicate = 0;
  double full = 0;
  double error = 0;
};

struct Specification {
  std::uint64_t seed = 0;
  Rules rules;
  std::string backend;
};

/// @retval Errc::invalid_argument with what is wrong in the name.
[[nodiscard]] Result<Specification> parse(std::string_view name);

[[nodiscard]] std::unique_ptr<Transport> decorate(std::string_view name, const Specification& specification,
                                                  std::unique_ptr<Transport> backend);

}  // namespace sublet::transport::fault
