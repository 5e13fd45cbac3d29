// The part of Service that lets requests wait for capacity.

#include "runtime/base/limits.hpp"
#include "runtime/manager/service.hpp"

namespace sublet::manager {

void Service::grant_or_wait(const std::string& tenant, std::uint64_t wait_ms, Waiter waiter) {
  const std::chrono::milliseconds wait_max = limits::lease_wait_max;
  if (wait_ms > static_cast<std::uint64_t>(wait_max.count())) {
    return waiter.responder.send(
        Error(Errc::invalid_argument, "wait_ms must be at most " + std::to_string(wait_max.count())));
  }
  waiter.arrived = steady_();
  // A request that can wait does not overtake its tenant's own that wait already.
  const bool queue_first = wait_ms > 0 && !waiter.replacement && waiting_.of(tenant) > 0;
  if (!queue_first && try_grant(waiter, wait_ms == 0)) return;
  if (waiting_.size() >= limits::lease_waiters_max) {
    return refuse(waiter,
                  Error(Errc::queue_full, "too many requests wait already; " + waiter.explain().text));
  }
  const std::uint64_t number = next_number_++;
  waiting_.add(number, tenant, waiter.replacement, now() + std::chrono::milliseconds(wait_ms));
  waiter.responder.on_gone([this, number] {
    waiting_.remove(number);
    waiters_.erase(number);
  });
  waiters_.emplace(number, std::move(waiter));
  // A node that waits for the disk tells of no new worker meanwhile.
  store_->hurry();
}

/// False: there is no room, and it may wait. With `last` it is answered in any case.
bool Service::try_grant(const Waiter& waiter, bool last) {
  const Result<api::LeaseGrant> grant = waiter.attempt();
  if (!grant) {
    if (grant.error().code() == Errc::no_capacity && !last) return false;
    refuse(waiter, grant.error());
    return true;
  }
  metrics_.time_grant(std::chrono::duration_cast<std::chrono::microseconds>(steady_() - waiter.arrived));
  std::function<void()> undo;
  if (!waiter.replacement) {
    undo = [this, id = grant->lease] { static_cast<void>(table_.end(id, "not_recorded", now())); };
  }
  promise_lease(waiter.responder, {.status = 201, .body = api::to_json(*grant)}, std::move(undo));
  return true;
}

void Service::refuse(const Waiter& waiter, const Error& error) {
  metrics_.count_refusal(error.code());
  if (error.code() != Errc::no_capacity || !error.detail().empty()) return waiter.responder.send(error);
  const lease::Shortage shortage = waiter.explain();
  waiter.responder.send(control::reply_of(Error(Errc::no_capacity, shortage.text),
                                          shortage.retry_after.value_or(std::chrono::milliseconds(0))));
}

void Service::try_waiters() {
  if (unwritable_) return;
  waiting_.serve([this](const std::string& tenant) { return table_.claim(tenant); },
                 [this](std::uint64_t number) {
                   auto waiter = waiters_.extract(number);
                   if (!waiter || try_grant(waiter.mapped(), false)) return true;
                   waiters_.insert(std::move(waiter));
                   return false;
                 },
                 limits::lease_misfits_max);
}

}  // namespace sublet::manager
