#include "client/lease_state.hpp"

#include <sched.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "client/endpoint.hpp"
#include "client/keeper.hpp"
#include "client/manager_client.hpp"
#include "runtime/base/assert.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/control/transports.hpp"

namespace sublet {

namespace {

using namespace std::chrono_literals;

constexpr unsigned spins_between_yields = 16;

Status check(const LeaseOptions& options) {
  const auto wrong = [](const std::string& what) {
    return Error(Errc::invalid_argument, "LeaseOptions::" + what);
  };
  if (options.function.empty())
    return wrong("function is empty: name what was deployed, for example digits@1");
  if (options.workers == 0 || options.workers > limits::lease_workers_max) {
    return wrong("workers must be 1 to " + std::to_string(limits::lease_workers_max));
  }
  if (options.cores == 0) return wrong("cores must be at least 1");
  if (!std::has_single_bit(options.in_flight) || options.in_flight > limits::slots_max) {
    return wrong("in_flight must be a power of two up to " + std::to_string(limits::slots_max));
  }
  const std::size_t slot_min = std::size_t{1} << limits::slot_bytes_log2_min;
  const std::size_t slot_max = std::size_t{1} << limits::slot_bytes_log2_max;
  if (!std::has_single_bit(options.slot_bytes) || options.slot_bytes < slot_min ||
      options.slot_bytes > slot_max) {
    return wrong("slot_bytes must be a power of two from " + std::to_string(slot_min) + " to " +
                 std::to_string(slot_max));
  }
  if (options.arena_bytes == 0) return wrong("arena_bytes must be more than 0");
  if (options.ttl <= 0ms || options.ttl > limits::lease_ms_max)
    return wrong("ttl must be positive and at most a day");
  if (options.wait < 0ms || options.hot.count() < 0) return wrong("wait and hot must not be negative");
  if (const Status wishes = api::check(client::base_names(options.transports)); !wishes.ok())
    return wrong(wishes.error().detail());
  return client::check_here(options.transports);
}

/// How often to yield while spinning: at all only when more parties spin than there are cores.
unsigned yield_interval(const api::LeaseGrant& grant) {
  const std::string machine = client::boot_id();
  const auto here =
      std::count_if(grant.workers.begin(), grant.workers.end(),
                    [&](const api::GrantedWorker& worker) { return worker.machine == machine; });
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (::sched_getaffinity(0, sizeof(cores), &cores) != 0) return spins_between_yields;
  return CPU_COUNT(&cores) <= here ? spins_between_yields : 0;
}

api::LeaseRequest request_of(const SiteOptions& site, const LeaseOptions& options) {
  api::LeaseRequest request{.function = options.function,
                            .tenant = site.tenant,
                            .workers = options.workers,
                            .cores = options.cores,
                            .memory_bytes = options.memory_bytes,
                            .ttl_ms = static_cast<std::uint64_t>(options.ttl.count()),
                            .wait_ms = static_cast<std::uint64_t>(options.wait.count())};
  request.transports = client::base_names(options.transports);
  return request;
}

}  // namespace

LeaseState::LeaseState(const LeaseOptions& wanted, memory::Region memory, const client::RegionPlan& layout)
    : options(wanted),
      region(std::move(memory)),
      plan(layout),
      calls(region.data(), region.size(), plan,
            static_cast<std::uint32_t>(std::min<std::int64_t>(wanted.hot.count(), 0xFFFF'FFFF))),
      hot_(wanted.hot) {
  sleep_set_.reserve(plan.links + 1);
}

LeaseState::~LeaseState() = default;

Result<LeaseState*> LeaseState::acquire(const std::string& url, const SiteOptions& site,
                                        const LeaseOptions& options) {
  if (Status checked = check(options); !checked.ok()) return checked.error();
  const client::RegionPlan plan{options.workers, options.in_flight};
  auto region = memory::Region::create(plan.arena_offset() + options.arena_bytes, "sublet-lease");
  if (!region.ok()) return region.error();
  auto owner_wakeup = client::Wakeup::create();
  if (!owner_wakeup.ok()) return owner_wakeup.error();
  auto keeper_wakeup = client::Wakeup::create();
  if (!keeper_wakeup.ok()) return keeper_wakeup.error();
  auto manager = client::ManagerClient::create(url);
  if (!manager.ok()) return manager.error();

  const auto grant = (*manager)->lease(request_of(site, options), options.wait + site.timeout);
  if (!grant.ok()) return grant.error();
  // From the answer on, not from the question: it may have waited for capacity.
  const TimePoint granted = SteadyClock::now();
  auto state = std::make_unique<LeaseState>(options, std::move(*region), plan);
  state->owner_wakeup = std::move(*owner_wakeup);
  state->keeper_wakeup = std::move(*keeper_wakeup);
  state->id = grant->lease;
  state->function_name = grant->function_name;
  state->expiry = granted + std::chrono::milliseconds(grant->ttl_ms);
  state->spins_before_yield = yield_interval(*grant);
  state->url_ = url;
  state->timeout_ = site.timeout;
  state->keeper_ = std::make_unique<client::Keeper>(*state, url, site.timeout);
  Status started =
      Error(Errc::protocol_error, "the manager granted another number of workers than asked for");
  if (grant->workers.size() == options.workers) started = state->keeper_->start(*grant, granted);
  if (started.ok())
    started = state->keeper_->wait_connected(granted + std::max<std::chrono::milliseconds>(options.wait, 1s));
  if (!started.ok()) {
    (void)state->release();
    return started.error();
  }
  return state.release();
}

Status LeaseState::release() {
  if (released_) return release_status_;
  released_ = true;
  keeper_->stop();
  // A connection of its own: the keeper's was cancelled.
  auto manager = client::ManagerClient::create(url_);
  release_status_ = manager.ok() ? (*manager)->release(id, timeout_) : Status(manager.error());
  return release_status_;
}

Result<Buffer> LeaseState::allocate(std::size_t bytes) {
  ownership.lock();
  const auto allocated = calls.blocks().allocate(bytes);
  ownership.unlock();
  if (!allocated) {
    return Error(Errc::out_of_memory, std::to_string(bytes) + " bytes do not fit the arena of " +
                                          std::to_string(options.arena_bytes) +
                                          ": raise LeaseOptions::arena_bytes or free buffers");
  }
  Buffer buffer;
  buffer.owner_ = this;
  buffer.data_ = region.data() + allocated->offset;
  buffer.size_ = bytes;
  buffer.block_ = allocated->block;
  retain();
  return buffer;
}

std::vector<WorkerStatus> LeaseState::workers() {
  std::vector<WorkerStatus> all;
  all.reserve(options.workers);
  ownership.lock();
  for (const client::WorkerLink& link : calls.links()) {
    const client::WorkerIdentity& who = link.identity();
    WorkerStatus status{.node = who.node_name, .worker = who.worker, .in_flight = link.busy()};
    if (link.connected()) {
      status.transport = who.transport;
      status.address = who.address;
      status.why = who.why;
      status.fell_back = who.fell_back;
    }
    all.push_back(std::move(status));
  }
  ownership.unlock();
  return all;
}

LeaseCounters LeaseState::counters() {
  ownership.lock();
  const client::InvocationCounters& counted = calls.counters();
  const LeaseCounters all{.submitted = counted.submitted,
                          .succeeded = counted.succeeded,
                          .failed = counted.failed,
                          .rerun = counted.rerun,
                          .replaced = replaced};
  ownership.unlock();
  return all;
}

void LeaseState::abandon() noexcept {
  (void)release();
  abandoned_ = true;
  if (references_ == 0) delete this;
}

void LeaseState::let_go() noexcept {
  SUBLET_ASSERT(references_ > 0);
  if (--references_ == 0 && abandoned_) delete this;
}

}  // namespace sublet
