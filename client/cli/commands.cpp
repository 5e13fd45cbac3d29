#include "client/cli/commands.hpp"

#include <chrono>
#include <cstdlib>
#include <cxxopts.hpp>
#include <iostream>

#include "client/cli/table.hpp"
#include "client/manager_client.hpp"
#include "runtime/base/clock.hpp"
#include "sdk/cpp/sublet/client.hpp"

namespace sublet::cli {

namespace {

using namespace std::chrono_literals;

constexpr auto list_timeout = 10s;
constexpr auto deploy_timeout = 120s;
constexpr std::uint64_t mib = std::uint64_t{1} << 20;

std::string in_mib(std::uint64_t bytes) {
  return std::to_string((bytes + mib / 2) / mib) + " MiB";
}

std::string seconds_until(std::uint64_t unix_ms) {
  const std::uint64_t now = unix_time_ms();
  return unix_ms <= now ? "-" : std::to_string((unix_ms - now + 999) / 1000) + " s";
}

void print_nodes(const std::string& body) {
  Table table({"NODE", "NAME", "STATE", "CORES", "LEASED", "MEMORY", "LEASED", "READY", "SERVING"});
  const api::Nodes all = api::from_json<api::Nodes>(body).value();
  for (const api::NodeInfo& node : all.nodes) {
    table.add({std::to_string(node.node), node.name, node.state, std::to_string(node.cores),
               std::to_string(node.cores_leased), in_mib(node.memory_bytes), in_mib(node.memory_leased),
               std::to_string(node.workers_ready), std::to_string(node.workers_serving)});
  }
  table.print(std::cout);
}

void print_leases(const std::string& body) {
  Table table({"LEASE", "TENANT", "FUNCTION", "STATE", "REASON", "WORKERS", "CORES", "EXPIRES IN"});
  const api::Leases all = api::from_json<api::Leases>(body).value();
  for (const api::LeaseInfo& lease : all.leases) {
    table.add({std::to_string(lease.lease), lease.tenant, lease.function_name, lease.state,
               lease.reason.empty() ? "-" : lease.reason, std::to_string(lease.workers.size()),
               std::to_string(lease.cores), lease.state == "active" ? seconds_until(lease.expiry_ms) : "-"});
  }
  table.print(std::cout);
}

void print_functions(const std::string& body) {
  Table table({"FUNCTION", "BYTES", "SHA-256"});
  const api::Functions all = api::from_json<api::Functions>(body).value();
  for (const api::FunctionInfo& function : all.functions) {
    table.add({function.name + "@" + function.version, std::to_string(function.bytes), function.digest});
  }
  table.print(std::cout);
}

}  // namespace

std::string default_manager() {
  const char* const named = std::getenv("SUBLET_MANAGER");
  return named != nullptr && *named != '\0' ? named : "http://127.0.0.1:7400";
}

std::pair<std::string, std::string> parse_function(const std::string& text) {
  const std::size_t at = text.find('@');
  if (at == 0 || at == std::string::npos || at + 1 == text.size()) {
    throw Usage("'" + text + "' is not of the form NAME@VERSION");
  }
  return {text.substr(0, at), text.substr(at + 1)};
}

int deploy(int argc, char** argv) {
  cxxopts::Options options("sublet deploy", "Makes a function known at the manager.");
  options.positional_help("NAME@VERSION FILE.so");
  options.add_options()("function", "What to call it", cxxopts::value<std::string>())(
      "file", "The shared library", cxxopts::value<std::string>())(
      "manager", "The manager's address", cxxopts::value<std::string>()->default_value(default_manager()))(
      "help", "This text");
  options.parse_positional({"function", "file"});
  const auto given = options.parse(argc, argv);
  if (given.count("help") != 0) {
    std::cout << options.help();
    return exit_ok;
  }
  if (given.count("function") == 0 || given.count("file") == 0)
    throw Usage("deploy needs NAME@VERSION and FILE.so");
  const auto [name, version] = parse_function(given["function"].as<std::string>());
  Site site = Site::connect(given["manager"].as<std::string>(), {.timeout = deploy_timeout}).value();
  site.deploy(name, version, given["file"].as<std::string>()).value();
  std::cout << "deployed " << name << '@' << version << '\n';
  return exit_ok;
}

int list(int argc, char** argv) {
  const std::string what = argv[0];
  cxxopts::Options options("sublet " + what, "Lists the " + what + " that the manager knows.");
  options.add_options()("json", "Print the manager's answer as it is")(
      "manager", "The manager's address", cxxopts::value<std::string>()->default_value(default_manager()))(
      "help", "This text");
  const auto given = options.parse(argc, argv);
  if (given.count("help") != 0) {
    std::cout << options.help();
    return exit_ok;
  }
  const auto manager = client::ManagerClient::create(given["manager"].as<std::string>()).value();
  const std::string body = manager->list(what, list_timeout).value();
  if (given.count("json") != 0) {
    std::cout << body << '\n';
  } else if (what == "nodes") {
    print_nodes(body);
  } else if (what == "leases") {
    print_leases(body);
  } else {
    print_functions(body);
  }
  return exit_ok;
}

}  // namespace sublet::cli
