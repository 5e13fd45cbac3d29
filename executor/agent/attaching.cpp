// The part of the agent that gives leases their cores and memory.
#include <unistd.h>

#include <algorithm>

#include "executor/agent/agent.hpp"

namespace sublet::agent {
namespace {

using std::chrono::milliseconds;

constexpr std::uint64_t memory_unit = std::uint64_t{16} << 20;
constexpr milliseconds attach_max{1'000};  ///< Waiting for cores that ending workers still hold.
constexpr milliseconds fetch_wait_max{30'000};
constexpr std::uint64_t lease_number_max = (std::uint64_t{1} << 53) - 1;  // As the manager gives out.

}  // namespace

void Agent::on_attach(WorkerProcess& worker, const wire::Token& token) {
  // The worker has checked the token, but it runs tenants' code: nothing of it may spoil a heartbeat.
  if (token.worker != worker.id || token.lease == 0 || token.lease > lease_number_max) {
    answer(worker, Error(Errc::permission_denied, "the token is not for this worker"), {});
    return;
  }
  worker.token = token;
  worker.state = State::attaching;
  changed_ = true;
  if (functions_.find(token.function) == functions_.end()) {
    worker.refuse_at = SteadyClock::now() + fetch_wait_max;
    link_.fetch(token.function);
  } else {
    worker.refuse_at = SteadyClock::now() + attach_max;
  }
  try_attach(worker);
}

void Agent::try_attach(WorkerProcess& worker) {
  const wire::Token& token = *worker.token;
  if (draining_) {
    answer(worker, Error(Errc::lease_revoked, "the node is draining; ask for another worker"), {});
    return;
  }
  if (ended_leases_.contains(token.lease)) {
    answer(worker, Error(Errc::lease_revoked, "the lease has ended; acquire a new one"), {});
    return;
  }
  const std::optional<TimePoint> lease_end = link_.when(token.expiry_ms);
  if (!lease_end || *lease_end <= SteadyClock::now()) {
    answer(worker, Error(Errc::lease_expired, "the token has expired; renew the lease"), {});
    return;
  }
  const auto function = functions_.find(token.function);
  if (function == functions_.end()) return;
  const std::uint64_t share = memory_lent_ / std::max<std::size_t>(cores_.lent_count(), 1) * token.cores;
  const std::uint64_t memory = token.memory_16mib != 0 ? token.memory_16mib * memory_unit : share;
  if (memory_held_ + memory > memory_lent_) return;
  auto cores = cores_.take(token.cores);
  if (!cores) return;
  worker.lease_end = *lease_end;
  worker.cores = std::move(*cores);
  worker.memory_bytes = memory;
  memory_held_ += memory;
  Status granted = enforce(worker);
  if (granted) granted = usage_.begin(worker.usage, token.lease);
  answer(worker, granted, function->second);
  if (granted) remember_function(token.function);
}

Status Agent::enforce(WorkerProcess& worker) {
  if (worker.pid <= 0) return Error(Errc::internal, "the worker's process is not known");
  if (Status bound = bind_to_cores(worker.pid, machine_cores(worker.cores)); !bound) return bound;
  return limit_memory(worker.pid, worker.memory_bytes);
}

void Agent::answer(WorkerProcess& worker, const Status& granted, const std::string& path) {
  local::Attached attached;
  worker.refuse_at.reset();
  if (!granted) {
    attached.refused = static_cast<std::uint16_t>(granted.error().code());
    local::put(attached.text, granted.error().detail());
    free_share(worker);
    worker.token.reset();
    worker.state = State::ready;
    changed_ = true;
  } else {
    attached.lease_end_ns = std::chrono::nanoseconds(worker.lease_end.time_since_epoch()).count();
    local::put(attached.function_path, path);
  }
  if (!local::send(worker.socket.get(), attached)) worker.kill_at = SteadyClock::now();
}

void Agent::free_share(WorkerProcess& worker) {
  cores_.give_back(std::exchange(worker.cores, {}));
  memory_held_ -= std::exchange(worker.memory_bytes, 0);
}

void Agent::retry_attaching() {
  for (auto& [id, worker] : workers_) {
    if (worker.state == State::attaching && worker.refuse_at) try_attach(worker);
  }
}

}  // namespace sublet::agent
