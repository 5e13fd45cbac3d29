#include "runtime/manager/service.hpp"

#include <algorithm>
#include <fstream>

#include "runtime/base/limits.hpp"
#include "runtime/base/log.hpp"

namespace sublet::manager {
namespace {

constexpr std::chrono::milliseconds tick_period{50};
// A tick this late means that the manager itself was stopped or busy, and heartbeats wait in its sockets.
constexpr std::chrono::milliseconds tick_late{1000};
// Ids start at the clock's time, so that even a manager with a new state directory starts above what its
// predecessor gave out; 64 ids a millisecond keep them below 2^53, which every JSON reader has.
constexpr std::uint64_t ids_per_ms = 64;

std::string boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

}  // namespace

Result<std::unique_ptr<Service>> Service::open(control::EventLoop& loop,
                                               const std::filesystem::path& state_dir, lease::Policy policy,
                                               Steady steady) {
  Result<std::unique_ptr<Store>> store = Store::open(state_dir / "sublet.db");
  if (!store) return store.error();
  Result<Loaded> loaded = (*store)->load();
  if (!loaded) return loaded.error();
  const std::string boot = boot_id();
  const SiteClock clock = SiteClock::resume(
      !boot.empty() && boot == loaded->boot_id, loaded->clock, loaded->last,
      std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now()), steady());
  if (Status set = (*store)->set_clock(boot, clock.offset()); !set) return set.error();
  (*store)->keep_ended(limits::usage_leases_max);
  Result<std::unique_ptr<FunctionStore>> functions =
      FunctionStore::open(state_dir / "functions", loaded->functions, loaded->next_function);
  if (!functions) return functions.error();
  for (const std::string& name : (*functions)->damaged()) {
    log::error("the bytes of " + name + " are gone from the state directory; deploy it again");
  }
  return std::unique_ptr<Service>(
      new Service(loop, {*std::move(store), *std::move(functions), clock, *std::move(loaded),
                         std::move(policy), std::move(steady)}));
}

Service::Service(control::EventLoop& loop, Parts parts)
    : loop_(loop),
      store_(std::move(parts.store)),
      functions_(std::move(parts.functions)),
      steady_(std::move(parts.steady)),
      clock_(parts.clock),
      table_(std::max(parts.loaded.next_id, lease::to_ms(now()) * ids_per_ms), std::move(parts.policy)),
      ticked_(steady_()),
      started_(now()) {
  store_->on_synced([this](std::uint64_t writes, const Status& synced) {
    loop_.post([this, writes, synced] { on_synced(writes, synced); });
  });
  const std::size_t nodes = parts.loaded.saved.nodes.size();
  table_.restore(std::move(parts.loaded.saved), started_, limits::restart_grace);
  if (nodes + table_.active() > 0) {
    log::info("took up " + std::to_string(nodes) + " nodes and " + std::to_string(table_.active()) +
              " leases");
  }
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
  add_usage_routes(routes);
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
  loop_.every(tick_period, [this] { tick(); });
}

void Service::tick() {
  const TimePoint steady = steady_();
  const lease::Time time = clock_.at(steady);
  if (steady - ticked_ > tick_late) {
    log::warning(
        "away for " +
        std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(steady - ticked_).count()) +
        " ms; no node is lost for that");
    table_.forgive_silence(time);
  }
  ticked_ = steady;
  if (disk_is_slow(steady)) table_.forgive_silence(time);
  table_.tick(time);
  forget_old_picture();
  end_overdue();
  settle();
}

void Service::settle() {
  // An answer lets its connection's next request in, whose handler ends here again.
  settle_again_ = true;
  if (settling_) return;
  settling_ = true;
  while (std::exchange(settle_again_, false)) {
    const lease::Changes changes = table_.take_changes();
    for (const std::string& event : changes.events) log::info(event);
    for (const lease::NodeId node : changes.commands) {
      if (const auto poll = polls_.find(node); poll != polls_.end()) answer_poll(poll);
    }
    if (changes.capacity) try_waiters();
  }
  settling_ = false;
  if (anything_to_write() || !promises_.empty() || unwritable_) write_soon();
}

void Service::end_overdue() {
  for (const std::uint64_t number : waiting_.take_overdue(now())) {
    auto waiter = waiters_.extract(number);
    if (waiter) static_cast<void>(try_grant(waiter.mapped(), true));
  }
  for (const TimePoint time = steady_(); !poll_ends_.empty(); poll_ends_.pop_front()) {
    const auto [deadline, node, number] = poll_ends_.front();
    if (deadline > time) return;
    if (const auto poll = polls_.find(node); poll != polls_.end() && poll->second.number == number)
      answer_poll(poll);
  }
}

void Service::answer_poll(std::map<lease::NodeId, Poll>::iterator poll) {
  const Result<api::Commands> commands = table_.commands_after(poll->first, poll->second.after);
  const Responder responder = poll->second.responder;
  polls_.erase(poll);
  if (!commands) return responder.send(commands.error());
  responder.send({.body = api::to_json(*commands)});
}

void Service::health(const Request&, const Responder& responder) {
  responder.send(
      {.body = api::to_json(api::Health{"ok", SUBLET_VERSION, lease::to_ms(now()), lease::to_ms(started_)})});
}

void Service::ready(const Request&, const Responder& responder) {
  if (refuse_unwritable(responder)) return;
  responder.send({.body = R"({"status":"ok"})"});
}

void Service::show_metrics(const Request&, const Responder& responder) {
  responder.send(
      {.body = metrics_.text(table_, waiting_.size(), functions_->size(), !unwritable_, slurm_age()),
       .content_type = "text/plain; version=0.0.4"});
}

}  // namespace sublet::manager
