#pragma once

#include <string_view>

namespace sublet::agent {

/// Whether the command line's first word is one of an order to an agent that runs: lend or lent.
[[nodiscard]] bool is_order(std::string_view word) noexcept;

/// Carries it out and returns the exit status: 0 done, 1 refused, 2 a wrong command line, 3 no agent there, 4
/// not in time.
[[nodiscard]] int run_order(int argc, char** argv);

}  // namespace sublet::agent
