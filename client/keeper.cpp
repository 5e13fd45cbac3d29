#include "client/keeper.hpp"

#include <poll.h>

#include <algorithm>
#include <bit>
#include <csignal>
#include <system_error>
#include <utility>

#include "runtime/base/assert.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/wire/handshake.hpp"

namespace sublet::client {

namespace {

using namespace std::chrono_literals;

constexpr auto service_interval = limits::heartbeat_interval / 2;
constexpr auto connect_max = limits::handshake_max;
/// Warm workers answer within it, and two hand-overs between threads are spared.
constexpr std::chrono::milliseconds connect_first_max{20};
constexpr std::chrono::milliseconds replace_first{20};
constexpr std::chrono::milliseconds replace_most{2000};

/// Errors that another attempt or another worker may mend; the others are the user's to mend.
bool may_pass(Errc code) {
  switch (code) {
    case Errc::invalid_argument:
    case Errc::not_found:
    case Errc::version_mismatch:
    case Errc::function_failed:
    case Errc::too_large:
      return false;
    default:
      return true;
  }
}

Error name_way(const Error& error, const Way& way, const api::GrantedWorker& grant) {
  return {error.code(),
          way.transport + " " + way.address + " on node " + grant.node_name + ": " + error.message()};
}

/// The user's signal handlers run in the user's threads.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

Keeper::Keeper(LeaseState& lease, std::string url, std::chrono::milliseconds timeout)
    : lease_(lease),
      url_(std::move(url)),
      timeout_(timeout),
      machine_(boot_id()),
      renew_backoff_(10ms, 10ms, 1) {}

Keeper::~Keeper() {
  stop();
}

Status Keeper::start(const api::LeaseGrant& grant, TimePoint granted) {
  auto manager = ManagerClient::create(url_);
  if (!manager.ok()) return manager.error();
  manager_ = std::move(*manager);
  ttl_ = std::chrono::milliseconds(grant.ttl_ms);
  renew_at_ = granted + ttl_ / 2;
  wanted_until_ = SteadyClock::now() + lease_.options.wait;
  const auto seed = static_cast<std::uint32_t>(
      grant.lease ^ static_cast<std::uint64_t>(granted.time_since_epoch().count()));
  renew_backoff_ = Backoff(std::max(ttl_ / 32, 1ms), std::max(ttl_ / 8, 1ms), seed);
  for (const api::GrantedWorker& worker : grant.workers) {
    const auto index = static_cast<std::uint32_t>(places_.size());
    places_.push_back(
        {Place::State::granted, worker, Backoff(replace_first, replace_most, seed + index), granted});
  }
  const SignalsBlocked blocked;
  connect_first();
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& error) {
    return Error(Errc::unavailable, std::string("the keeper's thread: ") + error.what());
  }
  return {};
}

Status Keeper::wait_connected(TimePoint until) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, until, [&] { return all_connected_ || fatal_.has_value(); });
  if (fatal_) return *fatal_;
  if (all_connected_) return {};
  return Error(Errc::unavailable,
               last_ ? "not every worker could be connected in time; the last error was " + last_->message()
                     : "the workers did not answer in time; raise LeaseOptions::wait");
}

void Keeper::stop() noexcept {
  stop_.store(true, std::memory_order_release);
  if (manager_) manager_->cancel();
  lease_.keeper_wakeup.wake();
  if (thread_.joinable()) thread_.join();
  if (errand_ && errand_->thread.joinable()) errand_->thread.join();
  errand_.reset();
  lease_.ownership.lock();
  lease_.calls.end(Errc::closed);
  std::vector<LostWorker> lost = lease_.calls.take_lost();
  lease_.ownership.unlock();
  lost.clear();  // Connections before the transports that they came from.
  transports_.clear();
}

void Keeper::connect_first() noexcept {
  const TimePoint until = SteadyClock::now() + connect_first_max;
  const auto under_way = [this] {
    return std::any_of(places_.begin(), places_.end(),
                       [](const Place& place) { return place.state == Place::State::connecting; });
  };
  connect_granted();
  while (under_way() && SteadyClock::now() < until) {
    sleep(until);
    service();
    connect_granted();
  }
}

void Keeper::run() noexcept {
  while (!stop_.load(std::memory_order_acquire)) {
    service();
    sweep();
    connect_granted();
    run_errands();
    sleep(next_duty());
  }
}

TimePoint Keeper::next_duty() const noexcept {
  TimePoint until = SteadyClock::now() + service_interval;
  if (errand_ || ended_) return until;
  if (lease_.options.renew) until = std::min(until, renew_at_);
  for (const Place& place : places_) {
    if (place.state == Place::State::lost) until = std::min(until, place.next_attempt);
  }
  return until;
}

void Keeper::sleep(TimePoint until) noexcept {
  std::vector<pollfd> set{{lease_.keeper_wakeup.descriptor(), POLLIN, 0}};
  for (const Opened& opened : transports_) {
    set.push_back({opened.transport->service_descriptor(), POLLIN, 0});
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - SteadyClock::now());
  ::poll(set.data(), set.size(), static_cast<int>(std::max(left, 0ms).count()));
  if (set.front().revents != 0) lease_.keeper_wakeup.drain();
}

void Keeper::service() noexcept {
  for (const Opened& opened : transports_) opened.transport->service(0ms);
}

/// What the owner does when it polls, for an owner that is busy elsewhere: deadlines, deaths, renewals.
void Keeper::sweep() noexcept {
  lease_.ownership.lock();
  const bool asleep = lease_.owner_asleep;
  lease_.step(SteadyClock::now(), true);
  lease_.keeper_told = false;
  std::vector<LostWorker> lost;
  if (lease_.calls.has_lost()) lost = lease_.calls.take_lost();
  ended_ = ended_ || lease_.calls.ended();
  lease_.ownership.unlock();
  if (asleep) lease_.owner_wakeup.wake();  // It was armed before our poll: it must arm again.
  note_lost(lost);
}

void Keeper::note_lost(const std::vector<LostWorker>& lost) noexcept {
  const TimePoint now = SteadyClock::now();
  for (const LostWorker& worker : lost) {
    Place& place = places_[worker.link];
    if (place.state == Place::State::connected) place.backoff.reset();
    place.state = Place::State::lost;
    place.next_attempt = now;
  }
}

/// All granted workers at once: each step of a handshake is somebody's wake-up, and they overlap.
void Keeper::connect_granted() noexcept {
  if (ended_) return;
  for (std::size_t index = 0; index < places_.size(); ++index) {
    Place& place = places_[index];
    if (stop_.load(std::memory_order_acquire)) break;
    if (place.state == Place::State::granted) {
      place.choice = {};
      auto ways = ways_to(place.grant, lease_.options.transports, machine_);
      if (ways.ok()) {
        place.ways = std::move(*ways);
        try_ways(place, Error(Errc::unavailable));
      } else {
        note_failed(ways.error(), place);
      }
    } else if (place.state == Place::State::connecting) {
      take_attempt(index, place);
    }
  }
  publish();
}

void Keeper::try_ways(Place& place, Error last) {
  while (!place.ways.empty()) {
    const Way& way = place.ways.front();
    if (way.address.empty()) {
      place.choice.pass_over(way, way.obstacle, false);
    } else {
      const Status started = start_attempt(place);
      if (started.ok()) {
        place.state = Place::State::connecting;
        return;
      }
      last = started.error();
      place.choice.pass_over(way, last.message(), opened(way.transport).ok());
    }
    place.ways.erase(place.ways.begin());
  }
  note_failed(last, place);
}

Status Keeper::start_attempt(Place& place) {
  const auto hello = hello_to(place.grant);
  if (!hello.ok()) return hello.error();
  const auto by = opened(place.ways.front().transport);
  if (!by.ok()) return by.error();
  const auto attempt =
      (*by)->transport->start_connect(place.ways.front().address, wire::bytes_of(*hello), patience());
  if (!attempt.ok()) return name_way(attempt.error(), place.ways.front(), place.grant);
  place.attempt = *attempt;
  return {};
}

void Keeper::take_attempt(std::size_t index, Place& place) {
  const Way& way = place.ways.front();
  auto taken = (*opened(way.transport))->transport->take_connected(place.attempt);
  if (!taken) return;
  const Status status =
      taken->ok() ? join_lease(index, place, std::move(**taken)) : name_way(taken->error(), way, place.grant);
  if (status.ok()) {
    place.state = Place::State::connected;
  } else if (taken->ok() || !may_pass(status.error().code())) {
    note_failed(status.error(), place);  // The worker has spoken: another way to it says nothing else.
  } else {
    place.choice.pass_over(way, status.error().message(), true);
    place.ways.erase(place.ways.begin());
    try_ways(place, status.error());
  }
}

/// A worker that loads its function answers late: as long as the user waits for the lease.
std::chrono::milliseconds Keeper::patience() const noexcept {
  const auto left = std::chrono::floor<std::chrono::milliseconds>(wanted_until_ - SteadyClock::now());
  return std::max(connect_max, left);
}

Result<wire::Hello> Keeper::hello_to(const api::GrantedWorker& grant) const {
  const auto token = wire::parse_token(grant.token);
  if (!token.ok()) return token.error();
  return wire::Hello{
      .slots_log2 = static_cast<std::uint8_t>(std::countr_zero(lease_.options.in_flight)),
      .slot_bytes_log2 = static_cast<std::uint8_t>(std::countr_zero(lease_.options.slot_bytes)),
      .token = *token};
}

Status Keeper::join_lease(std::size_t index, const Place& place, transport::Transport::Connected connected) {
  const Way& way = place.ways.front();
  const Opened& by = **opened(way.transport);
  const auto welcome = wire::parse_welcome(connected.private_data);
  if (!welcome.ok()) return welcome.error();
  const auto hello = hello_to(place.grant);
  if (!hello.ok()) return hello.error();
  const auto layout = wire::layout_of(*hello, welcome->region_bytes);
  if (!layout.ok()) return layout.error();
  Established established{.connection = std::move(connected.connection),
                          .capabilities = by.transport->capabilities(),
                          .welcome = *welcome,
                          .layout = *layout,
                          .identity = {.node = place.grant.node,
                                       .node_name = place.grant.node_name,
                                       .worker = place.grant.worker,
                                       .transport = way.transport,
                                       .address = way.address,
                                       .why = place.choice.why(way),
                                       .fell_back = place.choice.fell_back()}};
  lease_.ownership.lock();
  Status status = lease_.calls.connect(static_cast<std::uint32_t>(index), std::move(established), by.region);
  const bool asleep = lease_.owner_asleep;
  lease_.ownership.unlock();
  if (asleep) lease_.owner_wakeup.wake();
  return status;
}

Result<Keeper::Opened*> Keeper::opened(const std::string& transport) {
  for (Opened& known : transports_) {
    if (known.name == transport) return &known;
  }
  auto made = transport::open(transport);
  if (!made.ok()) return made.error();
  auto region = (*made)->register_region(lease_.region);
  if (!region.ok()) return region.error();
  transports_.push_back({transport, std::move(*made), *region});
  return &transports_.back();
}

void Keeper::note_failed(const Error& error, Place& place) {
  place.state = Place::State::lost;
  place.next_attempt = SteadyClock::now() + place.backoff.next();
  const std::lock_guard lock(mutex_);
  last_ = error;
  if (!may_pass(error.code())) fatal_ = error;
}

void Keeper::publish() {
  const bool all = std::all_of(places_.begin(), places_.end(),
                               [](const Place& place) { return place.state == Place::State::connected; });
  const std::lock_guard lock(mutex_);
  all_connected_ = all;
  if (all || fatal_) changed_.notify_all();
}

}  // namespace sublet::client
