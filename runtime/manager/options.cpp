#include "runtime/manager/options.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cxxopts.hpp>

namespace sublet::manager {
namespace {

/// 127.0.0.0/8 and ::1; nothing when `text` is no numeric address.
std::optional<bool> is_loopback(const std::string& text) {
  std::array<unsigned char, 16> bytes{};
  if (inet_pton(AF_INET, text.c_str(), bytes.data()) == 1) return bytes[0] == 127;
  if (inet_pton(AF_INET6, text.c_str(), bytes.data()) != 1) return std::nullopt;
  std::array<unsigned char, 16> loopback{};
  loopback[15] = 1;
  return bytes == loopback;
}

cxxopts::Options describe() {
  cxxopts::Options options(
      "sublet-manager", "The lease manager: knows nodes, leases and functions, and serves their HTTP API.\n");
  options.add_options()  //
      ("listen", "Numeric address to listen on", cxxopts::value<std::string>()->default_value("127.0.0.1"),
       "ADDRESS")  //
      ("port", "Port to listen on; 0 picks a free one",
       cxxopts::value<std::uint64_t>()->default_value("7400"), "PORT")  //
      ("port-file", "Write the port to this file once it is listened on", cxxopts::value<std::string>(),
       "PATH")  //
      ("state-dir",
       "Keep functions in this directory, which only one manager uses at a time; what an earlier one "
       "left is removed (default: a private temporary one, gone at the end)",
       cxxopts::value<std::string>(), "PATH")  //
      ("log-level", "debug, info, warning, error or off",
       cxxopts::value<std::string>()->default_value("info"), "LEVEL")  //
      ("allow-public",
       "Listen on an address other than loopback although nothing asks callers who they are: whoever "
       "reaches the port can run code on every node")  //
      ("version", "Print the version and end")         //
      ("h,help", "Print this and end");
  options.add_options("hidden")("print-routes", "Print methods and paths of the API and end");
  return options;
}

Error wrong(const std::string& text) {
  return {Errc::invalid_argument, text + "; see sublet-manager --help"};
}

Result<CommandLine> checked(const cxxopts::ParseResult& given) {
  if (!given.unmatched().empty()) return wrong("unexpected argument '" + given.unmatched().front() + "'");
  const std::uint64_t port = given["port"].as<std::uint64_t>();  // As uint16_t it would be cut silently.
  if (port > UINT16_MAX) return wrong("--port takes 0 to 65535, not " + std::to_string(port));
  Options options{.listen = given["listen"].as<std::string>(),
                  .port = static_cast<std::uint16_t>(port),
                  .port_file = given.count("port-file") > 0 ? given["port-file"].as<std::string>() : "",
                  .state_dir = given.count("state-dir") > 0 ? given["state-dir"].as<std::string>() : "",
                  .log_level = given["log-level"].as<std::string>(),
                  .print_routes = given.count("print-routes") > 0};
  constexpr std::array levels{"debug", "info", "warning", "error", "off"};
  if (std::find(levels.begin(), levels.end(), options.log_level) == levels.end()) {
    return wrong("--log-level takes debug, info, warning, error or off, not '" + options.log_level + "'");
  }
  const std::optional<bool> loopback = is_loopback(options.listen);
  if (!loopback) return wrong("--listen takes a numeric address, not '" + options.listen + "'");
  if (!*loopback && given.count("allow-public") == 0) {
    return wrong(
        "--listen " + options.listen +
        " can be reached from other machines, and nothing asks callers who they are yet: whoever reaches "
        "it can run code on every node. Where the network is trusted, add --allow-public");
  }
  return CommandLine{options, ""};
}

}  // namespace

Result<CommandLine> parse_command_line(int argc, const char* const* argv) {
  cxxopts::Options options = describe();
  try {
    const cxxopts::ParseResult given = options.parse(argc, argv);
    if (given.count("help") > 0) return CommandLine{std::nullopt, options.help({""})};
    if (given.count("version") > 0) return CommandLine{std::nullopt, "sublet-manager " SUBLET_VERSION "\n"};
    return checked(given);
  } catch (const cxxopts::exceptions::exception& error) {
    return wrong(error.what());
  }
}

}  // namespace sublet::manager
