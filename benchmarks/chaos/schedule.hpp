#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace sublet::bench::chaos {

enum class Role : std::uint8_t { manager, agent, client, worker, worker_template };
enum class Deed : std::uint8_t {
  kill,   ///< SIGKILL; what was started is started again after `time`.
  pause,  ///< SIGSTOP, and SIGCONT after `time`.
  end,    ///< SIGTERM, and a start after its end.
};

/// One act of the chaos.
struct Act {
  std::chrono::milliseconds at{};  ///< From the begin.
  Deed deed = Deed::kill;
  Role role = Role::manager;
  std::uint32_t which = 0;  ///< Modulo those that there are then.
  std::chrono::milliseconds time{};
};

/// The acts of `length`: the same for the same seed and length.
[[nodiscard]] std::vector<Act> make_schedule(std::uint64_t seed, std::chrono::milliseconds length);
[[nodiscard]] std::string text_of(const Act& act);

}  // namespace sublet::bench::chaos
