#include "runtime/manager/service.hpp"

#include "runtime/base/limits.hpp"
#include "runtime/base/log.hpp"

namespace sublet::manager {
namespace {

constexpr std::chrono::milliseconds tick_period{50};
// A tick this late means that the manager itself was stopped or busy, and heartbeats wait in its sockets.
constexpr std::chrono::milliseconds tick_late{1000};
// Bounds the work of one change when many requests wait and the first ones do not fit.
constexpr int misfits_max = 32;

// Ids start at the clock's time, so that a manager started later starts higher; 64 ids a millisecond keep
// them below 2^53, which every JSON reader has.
constexpr std::uint64_t ids_per_ms = 64;

}  // namespace

Service::Service(control::EventLoop& loop, std::unique_ptr<FunctionStore> functions)
    : loop_(loop), functions_(std::move(functions)), table_(unix_time_ms() * ids_per_ms) {}

lease::Now Service::now() {
  return {SteadyClock::now(), unix_time_ms()};
}

void Service::add(std::vector<control::Route>& routes, std::string method, std::string pattern,
                  std::size_t body_bytes_max, void (Service::*handler)(const Request&, const Responder&)) {
  routes.push_back({std::move(method), std::move(pattern), body_bytes_max,
                    [this, handler](const Request& request, const Responder& responder) {
                      if (closing_) return responder.send(Error(Errc::unavailable, "the manager is ending"));
                      (this->*handler)(request, responder);
                      settle();
                    }});
}

std::vector<control::Route> Service::routes() {
  std::vector<control::Route> routes;
  add_node_routes(routes);
  add_lease_routes(routes);
  add_function_routes(routes);
  add_service_routes(routes);
  return routes;
}

void Service::add_service_routes(std::vector<control::Route>& routes) {
  add(routes, "GET", "/healthz", 0, &Service::health);
  add(routes, "GET", "/readyz", 0, &Service::ready);
  add(routes, "GET", "/metrics", 0, &Service::show_metrics);
}

control::HttpServer::Observer Service::observer() {
  return [this](const std::string& method, const std::string& route, unsigned status) {
    metrics_.count_request(method, route, status);
  };
}

void Service::start() {
  ticked_ = SteadyClock::now();
  loop_.every(tick_period, [this] { tick(); });
}

void Service::tick() {
  const lease::Now time = now();
  if (time.steady - ticked_ > tick_late) {
    log::warning(
        "away for " +
        std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(time.steady - ticked_).count()) +
        " ms; no node is lost for that");
    table_.forgive_silence(time);
  }
  ticked_ = time.steady;
  table_.tick(time);
  end_overdue();
  settle();
}

void Service::settle() {
  const lease::Changes changes = table_.take_changes();
  for (const std::string& event : changes.events) log::info(event);
  for (const lease::NodeId node : changes.commands) {
    if (const auto poll = polls_.find(node); poll != polls_.end()) answer_poll(poll);
  }
  if (changes.capacity) try_waiters();
}

void Service::try_waiters() {
  int misfits = 0;
  for (auto it = waiters_.begin(); it != waiters_.end() && misfits < misfits_max;) {
    const Result<api::LeaseGrant> grant = it->attempt();
    if (!grant && grant.error().code() == Errc::no_capacity) {
      ++misfits;
      ++it;
      continue;
    }
    answer_grant(it->responder, grant, it->arrived);
    it = waiters_.erase(it);
  }
}

void Service::end_overdue() {
  const TimePoint time = SteadyClock::now();
  for (auto it = waiters_.begin(); it != waiters_.end();) {
    if (it->deadline > time) {
      ++it;
      continue;
    }
    answer_grant(it->responder, it->attempt(), it->arrived);
    it = waiters_.erase(it);
  }
  for (auto it = polls_.begin(); it != polls_.end();) {
    const auto poll = it++;
    if (poll->second.deadline <= time) answer_poll(poll);
  }
}

void Service::answer_poll(std::map<lease::NodeId, Poll>::iterator poll) {
  const Result<api::Commands> commands = table_.commands_after(poll->first, poll->second.after);
  const Responder responder = poll->second.responder;
  polls_.erase(poll);
  if (!commands) return responder.send(commands.error());
  responder.send({.body = api::to_json(*commands)});
}

void Service::grant_or_wait(const Responder& responder, std::uint64_t wait_ms, Attempt attempt) {
  const TimePoint arrived = SteadyClock::now();
  const std::chrono::milliseconds wait_max = limits::lease_wait_max;
  if (wait_ms > static_cast<std::uint64_t>(wait_max.count())) {
    return responder.send(
        Error(Errc::invalid_argument, "wait_ms must be at most " + std::to_string(wait_max.count())));
  }
  const Result<api::LeaseGrant> grant = attempt();
  if (grant || grant.error().code() != Errc::no_capacity || wait_ms == 0) {
    return answer_grant(responder, grant, arrived);
  }
  if (waiters_.size() >= limits::lease_waiters_max) {
    return answer_grant(responder,
                        Error(Errc::queue_full, "too many requests wait already; " + grant.error().detail()),
                        arrived);
  }
  const std::uint64_t number = next_number_++;
  waiters_.push_back(
      {number, responder, std::move(attempt), arrived, arrived + std::chrono::milliseconds(wait_ms)});
  responder.on_gone(
      [this, number] { waiters_.remove_if([&](const Waiter& waiter) { return waiter.number == number; }); });
}

void Service::answer_grant(const Responder& responder, const Result<api::LeaseGrant>& grant,
                           TimePoint arrived) {
  if (!grant) {
    metrics_.count_refusal(grant.error().code());
    return responder.send(grant.error());
  }
  metrics_.time_grant(std::chrono::duration_cast<std::chrono::microseconds>(SteadyClock::now() - arrived));
  responder.send({.status = 201, .body = api::to_json(*grant)});
}

void Service::shut_down() {
  closing_ = true;
  const Error ending(Errc::unavailable, "the manager is ending");
  for (const Waiter& waiter : waiters_) waiter.responder.send(ending);
  waiters_.clear();
  for (const auto& [node, poll] : polls_) poll.responder.send(ending);
  polls_.clear();
}

void Service::health(const Request&, const Responder& responder) {
  responder.send({.body = R"({"status":"ok"})"});
}

void Service::ready(const Request&, const Responder& responder) {
  responder.send({.body = R"({"status":"ok"})"});
}

void Service::show_metrics(const Request&, const Responder& responder) {
  responder.send({.body = metrics_.text(table_, waiters_.size(), functions_->list().functions.size()),
                  .content_type = "text/plain; version=0.0.4"});
}

}  // namespace sublet::manager
