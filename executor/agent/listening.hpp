#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.hpp"

namespace sublet::agent {

inline constexpr std::string_view transport_choices = "tcp, shm, verbs, fabric:PROVIDER";

/// On what workers shall listen, as the administrator has said it.
struct ListenWish {
  std::string address;                  ///< Numeric host of tcp, and of verbs unless it has its own.
  std::string verbs_address;            ///< Numeric host; empty: not said.
  std::vector<std::string> transports;  ///< Some of transport_choices; empty: all that work here.

  /// Named, and not merely taken when it works.
  [[nodiscard]] bool insists_on(std::string_view transport) const;
};

/// @retval Errc::invalid_argument A name that is none of transport_choices, or an address for what is not
///                                among the transports.
[[nodiscard]] Status check(const ListenWish& wish);

struct Listening {
  std::map<std::string, std::string>
      addresses;              ///< Transport to Transport::listen()'s address; shm's is empty.
  std::string without_verbs;  ///< Why workers do not listen on it; empty: they do.
};

/// Tries on this machine what is insisted on, and verbs; blocks for at most some seconds. The trial runs in a
/// process of its own and leaves nothing behind. One thread must be all that the process has.
/// @param state_dir    Where a socket may be made.
/// @param region_bytes Registered input memory of each worker.
/// @retval the trial's error when what is insisted on does not work.
[[nodiscard]] Result<Listening> choose_listening(const ListenWish& wish, const std::string& state_dir,
                                                 std::uint64_t region_bytes);

}  // namespace sublet::agent
