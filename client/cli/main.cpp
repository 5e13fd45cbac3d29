#include <cxxopts.hpp>
#include <exception>
#include <iostream>
#include <string>
#include <string_view>

#include "client/cli/commands.hpp"

namespace {

constexpr const char* usage_text = R"(Usage: sublet COMMAND [OPTIONS]

Commands:
  deploy NAME@VERSION FILE.so   Make a function known at the manager
  invoke NAME@VERSION           Lease workers, call the function, print its output
  nodes                         List the nodes and what they lend
  leases                        List the leases
  functions                     List the functions

  --help       This text; sublet COMMAND --help tells a command's options
  --version    The version

The manager's address is --manager URL, else the environment's SUBLET_MANAGER, else http://127.0.0.1:7400.
Exit codes: 0 done, 1 failed, 2 wrong usage.
)";

int run(int argc, char** argv) {
  namespace cli = sublet::cli;
  if (argc < 2) throw cli::Usage("a command is missing");
  const std::string_view command = argv[1];
  if (command == "--help" || command == "-h" || command == "help") {
    std::cout << usage_text;
    return cli::exit_ok;
  }
  if (command == "--version") {
    std::cout << "sublet " << SUBLET_VERSION << '\n';
    return cli::exit_ok;
  }
  if (command == "deploy") return cli::deploy(argc - 1, argv + 1);
  if (command == "invoke") return cli::invoke(argc - 1, argv + 1);
  if (command == "nodes" || command == "leases" || command == "functions")
    return cli::list(argc - 1, argv + 1);
  throw cli::Usage("there is no command '" + std::string(command) + "'");
}

}  // namespace

int main(int argc, char** argv) {
  namespace cli = sublet::cli;
  try {
    return run(argc, argv);
  } catch (const cli::Usage& error) {
    std::cerr << "sublet: " << error.what() << "; see sublet --help\n";
    return cli::exit_usage;
  } catch (const cxxopts::exceptions::exception& error) {
    std::cerr << "sublet: " << error.what() << "; see sublet --help\n";
    return cli::exit_usage;
  } catch (const std::exception& error) {
    std::cerr << "sublet: " << error.what() << '\n';
    return cli::exit_failed;
  }
}
