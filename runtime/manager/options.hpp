#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "runtime/base/result.hpp"
#include "runtime/lease/lease_table.hpp"
#include "runtime/manager/slurm_watch.hpp"

namespace sublet::manager {

struct Options {
  std::string listen = "127.0.0.1";
  std::uint16_t port = 7400;
  std::string port_file;
  std::string state_dir;
  std::string log_level = "info";
  bool print_routes = false;
  slurm::WatchOptions slurm;
  lease::Policy policy;  ///< Its tenants are the configuration's [tenant NAME].
};

/// What the command line asks for: options to run with, or a text to print instead (--help, --version,
/// --print-config).
struct CommandLine {
  std::optional<Options> options;
  std::string text;
};
/// @retval Errc::invalid_argument What is wrong with it.
[[nodiscard]] Result<CommandLine> parse_command_line(int argc, const char* const* argv);

}  // namespace sublet::manager
