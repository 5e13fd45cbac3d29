// The part of the agent that lends more or less of the node, as the machine's batch system orders.
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "executor/agent/agent.hpp"
#include "executor/agent/processes.hpp"
#include "runtime/base/log.hpp"

namespace sublet::agent {
namespace {

constexpr std::size_t askers_max = 8;
constexpr int bind_rounds_max = 8;  ///< A process that is born while others are bound is found in the next.
constexpr int stray_rounds_max = 100;
constexpr int stray_round_ms = 20;

local::CoreSet set_of(const std::vector<int>& cores) {
  local::CoreSet set;
  for (const int core : cores) set.set(static_cast<std::size_t>(core));
  return set;
}

}  // namespace

void Agent::on_asker_comes() {
  while (auto connection = orders_.accept()) {
    if (askers_.size() >= askers_max) continue;
    const int descriptor = connection->get();
    askers_[descriptor] = std::move(*connection);
    watch_asker(descriptor);
  }
}

void Agent::on_asker(int descriptor) {
  const auto found = askers_.find(descriptor);
  if (found == askers_.end()) return;
  const auto packet = local::receive(descriptor);
  if (!packet && packet.error().code() == Errc::unavailable) return;
  const auto order = packet ? packet->as<local::Lend>() : std::nullopt;
  if (order) {
    // Only the newest order counts: who waits for another one is told no by the end of its connection.
    if (const int older = std::exchange(awaits_, -1); older != descriptor) askers_.erase(older);
    if (const Status lent = lend(*order); !lent) {
      local::Lent answer{.refused = static_cast<std::uint16_t>(lent.error().code())};
      local::put(answer.text, lent.error().detail());
      [[maybe_unused]] const Status told = local::send(descriptor, answer);
    } else {
      awaits_ = descriptor;
    }
    return;
  }
  if (packet && packet->as<local::AskLent>()) {
    local::Lent answer{.memory_bytes = memory_lent_, .cores = set_of(cores_.lent())};
    for (const auto& [id, worker] : workers_) answer.held |= set_of(worker.cores);
    [[maybe_unused]] const Status told = local::send(descriptor, answer);
    return;
  }
  if (awaits_ == descriptor) awaits_ = -1;
  askers_.erase(found);
}

Status Agent::lend(const local::Lend& order) {
  std::vector<int> cores;
  for (std::size_t i = 0; i < order.cores.size(); ++i) {
    if (order.cores.test(i)) cores.push_back(static_cast<int>(i));
  }
  if (cores.empty() || static_cast<std::size_t>(cores.back()) >= cores_.size())
    return Error(Errc::invalid_argument, "the cores to lend must be of 0 to " +
                                             std::to_string(cores_.size() - 1) +
                                             ", at least one: to lend nothing, end the agent with SIGTERM");
  if (order.memory_bytes == 0 || order.memory_bytes > options_.memory_bytes)
    return Error(Errc::invalid_argument, "the memory to lend must be 1 MiB to " +
                                             std::to_string(options_.memory_bytes >> 20U) + " MiB");
  cores_.lend(cores);
  memory_lent_ = order.memory_bytes;
  lends_by_order_ = true;
  end_beyond_lent();
  bind_idle();
  changed_ = true;
  log::info("lending " + std::to_string(cores.size()) + " cores and " + std::to_string(memory_lent_ >> 20U) +
            " MiB");
  return {};
}

/// Ends the leases that hold what is not lent any more, the idle workers that such a node does not keep, and
/// notes whose end has to be awaited.
void Agent::end_beyond_lent() {
  std::uint64_t memory = 0;
  for (auto& [id, worker] : workers_) {
    const bool beyond = std::any_of(worker.cores.begin(), worker.cores.end(),
                                    [this](int core) { return !cores_.lends(core); });
    memory += worker.memory_bytes;
    if (beyond || memory > memory_lent_) {
      memory -= worker.memory_bytes;
      end_worker(worker, local::EndReason::drained);
    }
  }
  std::map<std::uint32_t, std::uint32_t> kept;  // Idle workers by function.
  for (auto& [id, worker] : workers_) {
    const bool idle = worker.state == State::ready || worker.state == State::starting;
    if (idle && ++kept[worker.function] > idle_max(worker.function))
      end_worker(worker, local::EndReason::drained);
  }
  leaving_lent_.clear();
  for (const auto& [id, worker] : workers_) {
    if (worker.told || worker.state == State::ending) leaving_lent_.insert(id);
  }
}

void Agent::tell_when_lent() {
  if (awaits_ < 0) return;
  std::erase_if(leaving_lent_, [this](std::uint32_t id) { return !workers_.contains(id); });
  if (!leaving_lent_.empty()) return;
  bind_idle();  // What those that have gone have left behind is this process's now.
  const local::Lent answer{.memory_bytes = memory_lent_, .cores = set_of(cores_.lent())};
  [[maybe_unused]] const Status told = local::send(std::exchange(awaits_, -1), answer);
}

std::vector<int> Agent::machine_cores(const std::vector<int>& cores) const {
  std::vector<int> numbers;
  numbers.reserve(cores.size());
  for (const int core : cores) numbers.push_back(options_.cores[static_cast<std::size_t>(core)]);
  return numbers;
}

/// Keeps the agent, its template, idle workers and what functions have left behind on the lent cores.
void Agent::bind_idle() {
  const std::vector<int> cores = machine_cores(cores_.lent());
  const auto has_lease = [this](pid_t pid) {
    return std::any_of(workers_.begin(), workers_.end(), [pid](const auto& entry) {
      return entry.second.pid == pid && !entry.second.cores.empty();
    });
  };
  for (int round = 0; round < bind_rounds_max; ++round) {
    bool changed = false;
    for (const pid_t pid : family(::getpid(), has_lease)) {
      if (is_bound_to(pid, cores)) continue;
      changed = true;
      if (const Status bound = bind_to_cores(pid, cores); !bound && ::kill(pid, 0) == 0)
        log::warning("process " + std::to_string(pid) +
                     " stays on cores that are not lent: " + bound.error().message());
    }
    if (!changed) return;
  }
}

/// The template, and what functions have started and left: all are this process's, which adopts orphans.
void Agent::end_strays() {
  for (int round = 0; round < stray_rounds_max; ++round) {
    for (const pid_t pid : family(::getpid(), [](pid_t) { return false; })) {
      if (pid != ::getpid()) ::kill(pid, SIGKILL);
    }
    pid_t reaped = 0;
    while ((reaped = ::waitpid(-1, nullptr, WNOHANG)) > 0) {
    }
    if (reaped < 0) break;  // There is none.
    pollfd wait{signals_.get(), POLLIN, 0};
    ::poll(&wait, 1, stray_round_ms);
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof(info)) > 0) {
    }
  }
  template_pid_ = -1;
}

/// How many workers are kept ready for the function, 0 being none: no more than cores, when some are lent
/// only.
std::uint32_t Agent::idle_max(std::uint32_t function) const {
  const std::uint32_t most = function == 0 ? options_.warm : options_.warm_loaded;
  const std::size_t lent = cores_.lent_count();
  return lent == cores_.size() ? most : std::min(most, static_cast<std::uint32_t>(lent));
}

}  // namespace sublet::agent
