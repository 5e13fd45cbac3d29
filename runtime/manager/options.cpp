#include "runtime/manager/options.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cxxopts.hpp>

#include "runtime/base/config.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/lease/checks.hpp"

namespace sublet::manager {
namespace {

constexpr std::uint32_t tenant_number_max = 1'000'000;  // Of shares, cores and leases.

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
       "Keep nodes, leases, functions and usage in this directory, which only one manager uses at a time "
       "(default: a private temporary one, gone at the end)",
       cxxopts::value<std::string>(), "PATH")  //
      ("placement",
       "Where requests that do not say so get workers: spread over the nodes, or packed onto few",
       cxxopts::value<std::string>()->default_value(lease::placement_spread), "POLICY")  //
      ("slurm-reconcile",
       "Ask Slurm every so many seconds what it wants of its nodes, 10 to 30 for a site: leases end before "
       "the "
       "jobs that are planned there, nodes that it drains or reserves get none. For one manager of a "
       "cluster; "
       "0: never",
       cxxopts::value<std::uint64_t>()->default_value("0"), "SECONDS")  //
      ("slurm-commands", "Where sinfo and squeue are (default: in PATH)", cxxopts::value<std::string>(),
       "PATH")  //
      ("log-level", "debug, info, warning, error or off",
       cxxopts::value<std::string>()->default_value("info"), "LEVEL")  //
      ("allow-public",
       "Listen on an address other than loopback although nothing asks callers who they are: whoever "
       "reaches the port can run code on every node")  //
      ("version", "Print the version and end")         //
      ("h,help", "Print this and end");
  config::add_options(options);
  options.add_options("hidden")("print-routes", "Print methods and paths of the API and end");
  return options;
}

Error wrong(const std::string& text) {
  return {Errc::invalid_argument, text + "; see sublet-manager --help"};
}

const std::vector<std::string> command_line_only{"version", "help", "print-routes"};
constexpr const char* tenant_section = "tenant";

Result<std::map<std::string, lease::TenantPolicy>> tenants_of(const config::File& file) {
  std::map<std::string, lease::TenantPolicy> tenants;
  for (const config::Section& section : file.sections) {
    if (section.kind != tenant_section) continue;
    if (!lease::is_name(section.name)) {
      return file.wrong(section.line, "a tenant's name has letters, digits and .:@_- only, " +
                                          std::to_string(limits::name_bytes_max) + " at most");
    }
    if (tenants.size() == limits::tenants_max) {
      return file.wrong(section.line, "more than " + std::to_string(limits::tenants_max) + " tenants");
    }
    lease::TenantPolicy& tenant = tenants[section.name];
    const std::map<std::string_view, std::uint32_t*> members{
        {"share", &tenant.share}, {"cores_max", &tenant.cores_max}, {"leases_max", &tenant.leases_max}};
    for (const config::Entry& entry : section.entries) {
      const auto member = members.find(entry.key);
      if (member == members.end()) {
        return file.wrong(entry.line, "a tenant has share, cores_max and leases_max, no '" + entry.key + "'");
      }
      const Result<std::uint32_t> number = config::number_of(file, entry, tenant_number_max);
      if (!number) return number.error();
      if (*number == 0 && member->second == &tenant.share) {
        return file.wrong(entry.line, "share is at least 1; a tenant without a share would wait for ever");
      }
      *member->second = *number;
    }
  }
  return tenants;
}

std::string print(const cxxopts::Options& described, const config::Settings& settings,
                  const std::map<std::string, lease::TenantPolicy>& tenants) {
  std::string out = config::print(described, settings, command_line_only);
  for (const auto& [name, tenant] : tenants) {
    out += std::string("\n[") + tenant_section + " " + name + "]\nshare = " + std::to_string(tenant.share) +
           "\ncores_max = " + std::to_string(tenant.cores_max) +
           "\nleases_max = " + std::to_string(tenant.leases_max) + "\n";
  }
  return out;
}

Result<CommandLine> checked(const config::Settings& settings) {
  const cxxopts::ParseResult& given = settings.given;
  if (!given.unmatched().empty()) return wrong("unexpected argument '" + given.unmatched().front() + "'");
  const std::uint64_t port = given["port"].as<std::uint64_t>();  // As uint16_t it would be cut silently.
  if (port > UINT16_MAX) {
    return wrong("--port takes 0 to 65535, not " + std::to_string(port) + settings.origin("port"));
  }
  Options options{.listen = given["listen"].as<std::string>(),
                  .port = static_cast<std::uint16_t>(port),
                  .port_file = given.count("port-file") > 0 ? given["port-file"].as<std::string>() : "",
                  .state_dir = given.count("state-dir") > 0 ? given["state-dir"].as<std::string>() : "",
                  .log_level = given["log-level"].as<std::string>(),
                  .print_routes = given.count("print-routes") > 0,
                  .policy = {.placement = given["placement"].as<std::string>()}};
  const std::uint64_t period = given["slurm-reconcile"].as<std::uint64_t>();
  if (period > static_cast<std::uint64_t>(limits::slurm_reconcile_max.count())) {
    return wrong("--slurm-reconcile takes 0 to " + std::to_string(limits::slurm_reconcile_max.count()) +
                 " seconds, not " + std::to_string(period) + settings.origin("slurm-reconcile"));
  }
  options.slurm.period = std::chrono::seconds(period);
  if (given.count("slurm-commands") > 0) options.slurm.folder = given["slurm-commands"].as<std::string>();
  if (options.policy.placement != lease::placement_spread &&
      options.policy.placement != lease::placement_pack) {
    return wrong("--placement takes spread or pack, not '" + options.policy.placement + "'" +
                 settings.origin("placement"));
  }
  constexpr std::array levels{"debug", "info", "warning", "error", "off"};
  if (std::find(levels.begin(), levels.end(), options.log_level) == levels.end()) {
    return wrong("--log-level takes debug, info, warning, error or off, not '" + options.log_level + "'" +
                 settings.origin("log-level"));
  }
  const std::optional<bool> loopback = is_loopback(options.listen);
  if (!loopback)
    return wrong("--listen takes a numeric address, not '" + options.listen + "'" +
                 settings.origin("listen"));
  if (!*loopback && !given["allow-public"].as<bool>()) {
    return wrong(
        "--listen " + options.listen + settings.origin("listen") +
        " can be reached from other machines, and nothing asks callers who they are yet: whoever reaches "
        "it can run code on every node. Where the network is trusted, add --allow-public");
  }
  Result<std::map<std::string, lease::TenantPolicy>> tenants = tenants_of(settings.file);
  if (!tenants) return tenants.error();
  options.policy.tenants = *std::move(tenants);
  return CommandLine{options, ""};
}

}  // namespace

Result<CommandLine> parse_command_line(int argc, const char* const* argv) {
  cxxopts::Options options = describe();
  try {
    const Result<config::Settings> settings =
        config::read(options, argc, argv, command_line_only, {tenant_section});
    if (!settings) return settings.error();
    const cxxopts::ParseResult& given = settings->given;
    if (given.count("help") > 0) return CommandLine{std::nullopt, options.help({""})};
    if (given.count("version") > 0) return CommandLine{std::nullopt, "sublet-manager " SUBLET_VERSION "\n"};
    Result<CommandLine> line = checked(*settings);
    if (line && given["print-config"].as<bool>()) {
      return CommandLine{std::nullopt, print(options, *settings, line->options->policy.tenants)};
    }
    return line;
  } catch (const cxxopts::exceptions::exception& error) {
    return wrong(error.what());
  }
}

}  // namespace sublet::manager
