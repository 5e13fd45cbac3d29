#include "executor/agent/order_command.hpp"

#include <poll.h>

#include <cxxopts.hpp>
#include <iostream>

#include "executor/agent/core_list.hpp"
#include "executor/agent/order_socket.hpp"
#include "executor/local/messages.hpp"

namespace sublet::agent {
namespace {

constexpr int refused = 1, wrong_usage = 2, no_agent = 3, too_late = 4;
constexpr std::uint64_t wait_ms_max = 3'600'000;
constexpr std::uint64_t mib = std::uint64_t{1} << 20;

int complain(int status, const std::string& text) {
  std::cerr << "sublet-agent: " << text << "\n";
  return status;
}

cxxopts::Options describe() {
  cxxopts::Options options(
      "sublet-agent lend|lent",
      "lend: this node lends so much from now on; returns when nothing beyond it is in use. "
      "lent: what is it?");
  options.add_options()("state-dir", "The agent's", cxxopts::value<std::string>())(
      "cores", "lend: these of the agent's cores, counted from 0, such as 0-3,8",
      cxxopts::value<std::string>())("memory", "lend: so much, MiB", cxxopts::value<std::uint64_t>())(
      "wait-ms", "How long the agent may take", cxxopts::value<std::uint64_t>()->default_value("10000"))(
      "help", "Print this text");
  return options;
}

std::string list(const local::CoreSet& set) {
  std::vector<int> cores;
  for (std::size_t i = 0; i < set.size(); ++i) {
    if (set.test(i)) cores.push_back(static_cast<int>(i));
  }
  return print_core_list(cores);
}

int show(const local::Lent& lent, bool asked) {
  if (lent.refused != 0) return complain(refused, std::string(local::get(lent.text)));
  if (asked) {
    std::cout << "cores=" << list(lent.cores) << " held=" << list(lent.held)
              << " memory_mib=" << lent.memory_bytes / mib << "\n";
  }
  return 0;
}

int exchange(const std::string& state_dir, const local::Lend* order, std::uint64_t wait_ms) {
  const auto connection = connect_to_agent(state_dir);
  if (!connection)
    return complain(connection.error().code() == Errc::not_found ? no_agent : refused,
                    connection.error().detail());
  const Status sent = order != nullptr ? local::send(connection->get(), *order)
                                       : local::send(connection->get(), local::AskLent{});
  if (!sent) return complain(refused, "the agent in " + state_dir + " has turned away");
  pollfd wait{connection->get(), POLLIN, 0};
  if (::poll(&wait, 1, static_cast<int>(wait_ms)) == 0)
    return complain(too_late, "the agent in " + state_dir + " has not given back in time what it lent");
  const auto packet = local::receive(connection->get());
  const auto lent = packet ? packet->as<local::Lent>() : std::nullopt;
  if (!lent)
    return complain(refused,
                    "the agent in " + state_dir + " has turned away: another order has come, or it ends");
  return show(*lent, order == nullptr);
}

int run(const cxxopts::ParseResult& given, bool lend) {
  if (given.count("state-dir") == 0) return complain(wrong_usage, "name the agent's --state-dir");
  const auto wait_ms = given["wait-ms"].as<std::uint64_t>();
  if (wait_ms > wait_ms_max)
    return complain(wrong_usage, "--wait-ms must be at most " + std::to_string(wait_ms_max));
  const auto state_dir = given["state-dir"].as<std::string>();
  if (!lend) return exchange(state_dir, nullptr, wait_ms);
  if (given.count("cores") == 0 || given.count("memory") == 0)
    return complain(wrong_usage, "lend needs --cores and --memory");
  const auto cores = parse_core_list(given["cores"].as<std::string>());
  if (!cores) return complain(wrong_usage, "--cores: " + cores.error().detail());
  const auto memory = given["memory"].as<std::uint64_t>();
  if (memory > UINT64_MAX / mib) return complain(wrong_usage, "--memory is in MiB");
  local::Lend order{.memory_bytes = memory * mib};
  for (const int core : *cores) order.cores.set(static_cast<std::size_t>(core));
  return exchange(state_dir, &order, wait_ms);
}

}  // namespace

bool is_order(std::string_view word) noexcept {
  return word == "lend" || word == "lent";
}

int run_order(int argc, char** argv) {
  cxxopts::Options described = describe();
  try {
    const auto given = described.parse(argc, argv);
    if (given.count("help") > 0) {
      std::cout << described.help();
      return 0;
    }
    if (given.unmatched().size() != 1)
      return complain(wrong_usage, "unknown argument " + given.unmatched().back());
    return run(given, given.unmatched().front() == "lend");
  } catch (const cxxopts::exceptions::exception& error) {
    return complain(wrong_usage, std::string(error.what()) + "; see sublet-agent lend --help");
  }
}

}  // namespace sublet::agent
