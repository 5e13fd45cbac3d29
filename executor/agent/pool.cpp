// The agent's pool of idle workers: how many of which kind, and their birth.
#include <algorithm>
#include <array>

#include "executor/agent/agent.hpp"
#include "runtime/base/assert.hpp"
#include "runtime/base/log.hpp"

namespace sublet::agent {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t recent_max = 2;      ///< Functions that idle workers are kept for.
constexpr milliseconds start_max{20'000};  ///< From fork to ready, the function's init included.
constexpr milliseconds fork_queue_pause{10};
constexpr milliseconds start_pause{1'000};

}  // namespace

std::uint32_t Agent::count(State state, std::uint32_t function) const {
  return static_cast<std::uint32_t>(std::count_if(workers_.begin(), workers_.end(), [&](const auto& entry) {
    return entry.second.state == state && entry.second.function == function;
  }));
}

void Agent::fill_pool() {
  if (draining_ || !key_ || template_pid_ <= 0 || start_again_at_) return;
  const auto fill = [this](std::uint32_t function, std::uint32_t wanted) {
    std::uint32_t have = count(State::ready, function) + count(State::starting, function);
    for (; have < wanted && !start_again_at_; ++have) start_worker(function);
  };
  fill(0, idle_max(0));
  for (const std::uint32_t function : recent_) fill(function, idle_max(function));
}

void Agent::start_worker(std::uint32_t function) {
  auto pair = local::make_socket_pair();
  if (!pair) {
    log::error("cannot start a worker: " + pair.error().message());
    start_again_at_ = SteadyClock::now() + start_pause;
    return;
  }
  const auto page = usage_.create();
  if (!page) {
    log::error("cannot start a worker: " + page.error().message());
    start_again_at_ = SteadyClock::now() + start_pause;
    return;
  }
  const std::uint32_t id = next_worker_++;
  local::Fork spec{.worker = id, .region_bytes = options_.region_bytes, .key = wire::worker_key(*key_, id)};
  const std::string shm_path = options_.state_dir + "/w" + std::to_string(id) + ".sock";
  for (const auto& [transport, address] : options_.listen) {
    SUBLET_ASSERT(local::add(spec.listen, transport, transport == "shm" ? shm_path : address));
  }
  if (function != 0) {
    spec.function = function;
    local::put(spec.function_path, functions_[function]);
  }
  if (!local::send(template_socket_.get(), spec, std::array{pair->second.get(), page->descriptor})) {
    usage_.end(page->id);
    start_again_at_ =
        SteadyClock::now() + fork_queue_pause;  // The template's queue is full: it forks as fast as it can.
    return;
  }
  WorkerProcess& worker = workers_[id];
  worker.id = id;
  worker.usage = page->id;
  worker.socket = std::move(pair->first);
  worker.shm_path = shm_path;
  worker.function = function;
  worker.kill_at = SteadyClock::now() + start_max;
  watch_worker(worker);
}

void Agent::remember_function(std::uint32_t function) {
  if (!recent_.empty() && recent_.front() == function) return;
  std::erase(recent_, function);
  recent_.insert(recent_.begin(), function);
  if (recent_.size() <= recent_max) return;
  const std::uint32_t forgotten = recent_.back();
  recent_.pop_back();
  for (auto& [id, worker] : workers_) {
    if (worker.function == forgotten && worker.state == State::ready)
      end_worker(worker, local::EndReason::revoked);
  }
}

}  // namespace sublet::agent
