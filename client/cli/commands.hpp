#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "runtime/base/result.hpp"

/// The commands of the `sublet` program. Each gets the arguments from its own name on, prints to standard
/// output, and throws Usage or sublet::Exception, which main() turns into a message and an exit code.
namespace sublet::cli {

inline constexpr int exit_ok = 0;
inline constexpr int exit_failed = 1;
inline constexpr int exit_usage = 2;

/// The command line is wrong.
class Usage : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// SUBLET_MANAGER, or the address of a manager on this machine.
[[nodiscard]] std::string default_manager();

/// Splits "name@version".
[[nodiscard]] std::pair<std::string, std::string> parse_function(const std::string& text);

[[nodiscard]] int deploy(int argc, char** argv);
[[nodiscard]] int invoke(int argc, char** argv);
/// nodes, leases or functions: argv[0].
[[nodiscard]] int list(int argc, char** argv);

}  // namespace sublet::cli
