#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "runtime/base/result.hpp"

namespace sublet::manager {

/// What a site grants one tenant; from the configuration's [tenant NAME].
struct TenantOptions {
  std::uint32_t share = 1;       ///< Weight among those that wait, at least 1.
  std::uint32_t cores_max = 0;   ///< Held at a time; 0: no quota.
  std::uint32_t leases_max = 0;  ///< Held at a time; 0: no quota.
};

struct Options {
  std::string listen = "127.0.0.1";
  std::uint16_t port = 7400;
  std::string port_file;
  std::string state_dir;
  std::string log_level = "info";
  bool print_routes = false;
  std::map<std::string, TenantOptions> tenants;
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
