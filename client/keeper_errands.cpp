// The keeper's requests to the manager: renewals and replacements.
#include <algorithm>
#include <system_error>
#include <utility>

#include "client/keeper.hpp"
#include "runtime/wire/handshake.hpp"

namespace sublet::client {

using namespace std::chrono_literals;

namespace {

constexpr std::chrono::milliseconds replace_wait_max{1000};

}  // namespace

/// One errand at a time; it must not keep a renewal from its time.
std::chrono::milliseconds Keeper::errand_timeout() const noexcept {
  return std::clamp(ttl_ / 4, std::min(200ms, timeout_), timeout_);
}

void Keeper::run_errands() noexcept {
  if (errand_ && errand_->done.load(std::memory_order_acquire)) finish_errand();
  if (errand_ || ended_ || stop_.load(std::memory_order_acquire)) return;
  const TimePoint now = SteadyClock::now();
  if (lease_.options.renew && now >= renew_at_) return start_errand(Errand::Kind::renew, 0);
  for (std::size_t index = 0; index < places_.size(); ++index) {
    Place& place = places_[index];
    if (place.state != Place::State::lost || now < place.next_attempt) continue;
    place.state = Place::State::replacing;
    return start_errand(Errand::Kind::replace, index);
  }
}

void Keeper::start_errand(Errand::Kind kind, std::size_t place) {
  errand_ = std::make_unique<Errand>();
  errand_->kind = kind;
  errand_->place = place;
  errand_->sent = SteadyClock::now();
  const auto timeout = errand_timeout();
  const auto wait_ms = static_cast<std::uint64_t>(std::min(replace_wait_max, timeout / 2).count());
  const api::ReplaceRequest lost{
      .node = places_[place].grant.node, .worker = places_[place].grant.worker, .wait_ms = wait_ms};
  const auto work = [this, errand = errand_.get(), lost, timeout] {
    if (errand->kind == Errand::Kind::renew) {
      errand->renewed = manager_->renew(lease_.id, static_cast<std::uint64_t>(ttl_.count()), timeout);
    } else {
      errand->replacement = manager_->replace(lease_.id, lost, timeout);
    }
    errand->done.store(true, std::memory_order_release);
    lease_.keeper_wakeup.wake();
  };
  try {
    errand_->thread = std::thread(work);  // With all signals blocked, as in the keeper's.
  } catch (const std::system_error& error) {
    errand_->renewed = Error(Errc::unavailable, error.what());
    errand_->replacement = Error(Errc::unavailable, error.what());
    finish_errand();
  }
}

void Keeper::finish_errand() {
  const std::unique_ptr<Errand> errand = std::move(errand_);
  if (errand->thread.joinable()) errand->thread.join();
  if (errand->kind == Errand::Kind::renew) {
    take_renewal(*errand);
  } else {
    take_replacement(*errand);
  }
}

void Keeper::take_renewal(const Errand& errand) {
  const Result<api::LeaseGrant>& answer = *errand.renewed;
  if (!answer.ok()) {
    end_lease(answer.error().code());
    renew_at_ = SteadyClock::now() + renew_backoff_.next();
    return;
  }
  renew_backoff_.reset();
  ttl_ = std::chrono::milliseconds(answer->ttl_ms);
  renew_at_ = errand.sent + ttl_ / 2;
  lease_.ownership.lock();
  lease_.expiry = errand.sent + ttl_;
  for (const api::GrantedWorker& worker : answer->workers) {
    const auto token = wire::parse_token(worker.token);
    if (token.ok()) lease_.calls.renew(worker.node, worker.worker, *token);
  }
  lease_.ownership.unlock();
  for (const api::GrantedWorker& worker : answer->workers) adopt(worker);
}

/// A worker of the lease that we do not know replaces one that was lost: that answer never came.
void Keeper::adopt(const api::GrantedWorker& worker) {
  const auto same = [&](const Place& place) {
    return place.grant.node == worker.node && place.grant.worker == worker.worker;
  };
  if (std::any_of(places_.begin(), places_.end(), same)) return;
  const auto lost = std::find_if(places_.begin(), places_.end(),
                                 [](const Place& place) { return place.state == Place::State::lost; });
  if (lost == places_.end()) return;
  lost->grant = worker;
  lost->state = Place::State::granted;
  lease_.ownership.lock();
  ++lease_.replaced;
  lease_.ownership.unlock();
}

void Keeper::take_replacement(const Errand& errand) {
  Place& place = places_[errand.place];
  const Result<api::GrantedWorker>& answer = *errand.replacement;
  if (!answer.ok()) {
    if (answer.error().code() == Errc::not_found) {
      // Either the lease is gone, or the answer that replaced this worker was lost: a renewal tells.
      if (lease_.options.renew) renew_at_ = SteadyClock::now();
    } else {
      end_lease(answer.error().code());
    }
    place.state = Place::State::lost;
    place.next_attempt = SteadyClock::now() + place.backoff.next();
    const std::lock_guard lock(mutex_);
    last_ = answer.error();
    return;
  }
  place.grant = *answer;
  place.state = Place::State::granted;
  lease_.ownership.lock();
  ++lease_.replaced;
  lease_.ownership.unlock();
}

/// Ends the lease when the manager's answer says that it has ended.
void Keeper::end_lease(Errc answer) {
  Errc reason = answer;
  if (answer == Errc::not_found) reason = Errc::lease_expired;  // Ended so long ago that it is forgotten.
  if (reason != Errc::lease_expired && reason != Errc::lease_revoked) return;
  lease_.ownership.lock();
  lease_.calls.end(reason);
  const bool asleep = lease_.owner_asleep;
  lease_.ownership.unlock();
  ended_ = true;
  if (asleep) lease_.owner_wakeup.wake();
  const std::lock_guard lock(mutex_);
  fatal_ = Error(reason);
  changed_.notify_all();
}

}  // namespace sublet::client
