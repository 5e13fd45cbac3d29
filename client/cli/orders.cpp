// deploy, remove, revoke, cordon, drain and their opposites: what changes the site.
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <thread>

#include "client/cli/manager.hpp"
#include "client/cli/progress.hpp"
#include "client/cli/terminal.hpp"
#include "client/cli/units.hpp"
#include "client/manager_client.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/base/limits.hpp"

namespace sublet::cli {

namespace {

using namespace std::chrono_literals;

constexpr auto deploy_timeout = 600s;
constexpr auto drain_poll = 200ms;

std::string read_library(const std::string& path) {
  std::error_code unknown;
  if (std::filesystem::is_directory(path, unknown))
    throw std::runtime_error(path + " is a folder; name a file in it");
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff bytes = file ? static_cast<std::streamoff>(file.tellg()) : -1;
  if (bytes < 0) throw std::runtime_error("cannot read " + path + ": " + std::strerror(errno));
  if (bytes == 0) throw std::runtime_error(path + " is empty; name the shared library that was built");
  if (bytes > static_cast<std::streamoff>(limits::function_bytes_max)) {
    throw std::runtime_error(path + " has " + in_bytes(static_cast<std::uint64_t>(bytes)) + "; the most is " +
                             in_bytes(limits::function_bytes_max));
  }
  std::string library(static_cast<std::size_t>(bytes), '\0');
  errno = 0;
  file.seekg(0);
  if (!file.read(library.data(), bytes)) {
    throw std::runtime_error("cannot read " + path + ": " +
                             (errno != 0 ? std::strerror(errno) : "it ends early"));
  }
  return library;
}

/// Gives `order` to every node that was named, all of which are looked up first.
std::vector<api::NodeInfo> order_nodes(const Arguments& given, Manager& manager, const std::string& order) {
  std::vector<api::NodeInfo> nodes;
  for (const std::string& named : given.operands()) nodes.push_back(manager.node(named));
  for (api::NodeInfo& node : nodes) node = manager.order(node, order);
  return nodes;
}

int tell_nodes(const Arguments& given, const std::vector<api::NodeInfo>& nodes, const std::string& done) {
  if (given.json()) {
    std::cout << api::to_json(api::Nodes{nodes}) << '\n';
    return exit_ok;
  }
  for (const api::NodeInfo& node : nodes) {
    std::cout << printable(node.name) << ' ' << done << "; it holds " << node.cores_leased << " of "
              << node.cores << (node.cores == 1 ? " core\n" : " cores\n");
  }
  return exit_ok;
}

bool is_empty(const api::NodeInfo& node) {
  return node.state == "lost" || (node.cores_leased == 0 && node.workers_serving == 0);
}

/// Until all are empty or `end` comes. One that has left the site is empty.
bool wait_empty(Manager& manager, std::vector<api::NodeInfo>& nodes, TimePoint end) {
  const auto still = [](SteadyClock::duration passed) { return "waiting for " + in_time(passed); };
  const Progress progress(still);
  for (;; std::this_thread::sleep_for(drain_poll)) {
    bool empty = true;
    for (api::NodeInfo& node : nodes) {
      if (is_empty(node)) continue;
      try {
        node = manager.read<api::NodeInfo>("/v1/nodes/" + std::to_string(node.node));
      } catch (const Exception& error) {
        if (error.code() != Errc::not_found) throw;
        node.state = "lost";
      }
      empty = empty && is_empty(node);
    }
    if (empty) return true;
    if (SteadyClock::now() >= end) return false;
  }
}

}  // namespace

int deploy(const Arguments& given) {
  const auto [name, version] = parse_function(given.operands()[0]);
  std::string library = read_library(given.operands()[1]);
  Manager manager(given);
  const std::string size = in_bytes(library.size());
  const Progress progress([&](SteadyClock::duration passed) {
    return "deploying " + size + " to " + manager.url() + ", " + in_time(passed);
  });
  const api::FunctionInfo deployed = manager.deploy(name, version, std::move(library), deploy_timeout);
  if (given.json()) {
    std::cout << api::to_json(deployed) << '\n';
  } else {
    std::cout << "deployed " << name << '@' << version << '\n';
  }
  return exit_ok;
}

int remove_functions(const Arguments& given) {
  Manager manager(given);
  api::Functions removed;
  for (const std::string& function : given.operands()) {
    const auto [name, version] = parse_function(function);
    const std::string path = "/v1/functions/" + client::escape(name) + "/" + client::escape(version);
    try {
      removed.functions.push_back(manager.read<api::FunctionInfo>(path));
    } catch (const Exception& error) {
      if (error.code() == Errc::not_found) manager.throw_unless_deployed(function);
      throw;
    }
    manager.remove(path);
    if (!given.json()) std::cout << "removed " << name << '@' << version << '\n';
  }
  if (given.json()) std::cout << api::to_json(removed) << '\n';
  return exit_ok;
}

int revoke(const Arguments& given) {
  std::vector<std::uint64_t> ids;
  for (const std::string& word : given.operands()) {
    const char* const end = word.data() + word.size();
    const auto [stop, error] = std::from_chars(word.data(), end, ids.emplace_back());
    if (error != std::errc() || stop != end) {
      throw Usage("'" + word + "' is no lease's number; `sublet leases` lists them");
    }
  }
  Manager manager(given);
  api::Leases revoked;
  for (const std::uint64_t id : ids) {
    const std::string path = "/v1/leases/" + std::to_string(id) + "/revoke";
    revoked.leases.push_back(manager.parse<api::LeaseInfo>(manager.post(path)));
    const std::string& reason = revoked.leases.back().reason;
    if (given.json()) continue;
    std::cout << "lease " << id
              << (reason == "revoked" ? " is revoked" : " had ended before: " + printable(reason)) << '\n';
  }
  if (given.json()) std::cout << api::to_json(revoked) << '\n';
  return exit_ok;
}

int cordon(const Arguments& given) {
  Manager manager(given);
  return tell_nodes(given, order_nodes(given, manager, "cordon"), "is cordoned");
}

int uncordon(const Arguments& given) {
  Manager manager(given);
  return tell_nodes(given, order_nodes(given, manager, "uncordon"), "is uncordoned");
}

int drain(const Arguments& given) {
  const std::uint64_t seconds_max = given.number("wait-max", 600, 1, 7 * 24 * 3600);
  if (given.has("wait-max") && !given.has("wait")) throw Usage("--wait-max is of use only with --wait");
  Manager manager(given);
  const TimePoint end = SteadyClock::now() + std::chrono::seconds(seconds_max);
  std::vector<api::NodeInfo> nodes = order_nodes(given, manager, "drain");
  if (!given.has("wait")) return tell_nodes(given, nodes, "is draining");
  if (wait_empty(manager, nodes, end)) return tell_nodes(given, nodes, "is drained");
  (void)tell_nodes(given, nodes, "is draining");
  std::cerr << "sublet: not empty after " << seconds_max
            << " s; see what it holds with `sublet leases`, end it with `sublet revoke`\n";
  return exit_still_busy;
}

int undrain(const Arguments& given) {
  Manager manager(given);
  return tell_nodes(given, order_nodes(given, manager, "undrain"), "is undrained");
}

}  // namespace sublet::cli
