#pragma once

#include <string>
#include <vector>

#include "runtime/base/result.hpp"
#include "runtime/control/api.hpp"
#include "sdk/cpp/sublet/client.hpp"

namespace sublet::client {

/// A transport by which a worker may be reached, or why it cannot be.
struct Way {
  std::string transport;
  std::string address;  ///< Empty: `obstacle` says why there is none.
  std::string obstacle;
  std::string wish;  ///< "preferred", "required"; empty: nobody asked for it.
};

/// What the choice of one among several ways has come by: told with the one that was taken.
class Choice {
 public:
  /// The way was not taken. @param tried It was, in vain.
  void pass_over(const Way& way, const std::string& why, bool tried);
  [[nodiscard]] std::string why(const Way& taken) const;
  [[nodiscard]] bool fell_back() const noexcept { return fell_back_; }

 private:
  std::string obstacles_;
  bool fell_back_ = false;
};

/// This machine's boot id: what a worker on the same machine has too. Empty when it cannot be read.
[[nodiscard]] std::string boot_id();

/// "shm" of "fault:1:drop=0.1:shm": what the decorated transport connects to.
[[nodiscard]] std::string base_name(const std::string& transport);
/// The wishes as the manager understands them.
[[nodiscard]] api::Transports base_names(const Transports& wishes);

/// @retval Errc::unavailable This machine has none of the transports that are required.
[[nodiscard]] Status check_here(const Transports& wishes);

/// The ways to a worker, best first: the preferred ones, then those required in their order or, when none is,
/// "shm" on the same machine, "verbs" and "tcp". One that is wished for and is none stands there with the
/// reason. At least one has an address.
/// @retval Errc::not_found naming what the worker offers.
[[nodiscard]] Result<std::vector<Way>> ways_to(const api::GrantedWorker& worker, const Transports& wishes,
                                               const std::string& this_machine);

}  // namespace sublet::client
