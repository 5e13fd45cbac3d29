#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/control/event_loop.hpp"
#include "runtime/control/http_server.hpp"
#include "runtime/lease/lease_table.hpp"
#include "runtime/manager/function_store.hpp"
#include "runtime/manager/metrics.hpp"

namespace sublet::manager {

/// The manager's HTTP API over its lease table and functions. Thread safety: the loop's thread.
class Service {
 public:
  explicit Service(control::EventLoop& loop, std::unique_ptr<FunctionStore> functions);

  [[nodiscard]] std::vector<control::Route> routes();
  [[nodiscard]] control::HttpServer::Observer observer();
  /// From now on time passes: leases expire, silent nodes are lost, waiting requests end.
  void start();
  /// Answers whatever waits: the program is about to end.
  void shut_down();

 private:
  using Request = control::HttpRequest;
  using Responder = control::Responder;
  using Attempt = std::function<Result<api::LeaseGrant>()>;

  /// A request that waits for capacity, in order of arrival.
  struct Waiter {
    std::uint64_t number = 0;
    Responder responder;
    Attempt attempt;
    TimePoint arrived;
    TimePoint deadline;
  };
  /// A node's long request for commands.
  struct Poll {
    std::uint64_t number = 0;
    Responder responder;
    std::uint64_t after = 0;
    TimePoint deadline;
  };

  void add_node_routes(std::vector<control::Route>& routes);
  void add_lease_routes(std::vector<control::Route>& routes);
  void add_function_routes(std::vector<control::Route>& routes);
  void add_service_routes(std::vector<control::Route>& routes);
  void add(std::vector<control::Route>& routes, std::string method, std::string pattern,
           std::size_t body_bytes_max, void (Service::*handler)(const Request&, const Responder&));

  void register_node(const Request& request, const Responder& responder);
  void heartbeat(const Request& request, const Responder& responder);
  void commands(const Request& request, const Responder& responder);
  void remove_node(const Request& request, const Responder& responder);
  void list_nodes(const Request& request, const Responder& responder);
  void show_node(const Request& request, const Responder& responder);
  void drain_node(const Request& request, const Responder& responder);
  void undrain_node(const Request& request, const Responder& responder);

  void grant_lease(const Request& request, const Responder& responder);
  void renew_lease(const Request& request, const Responder& responder);
  void replace_worker(const Request& request, const Responder& responder);
  void release_lease(const Request& request, const Responder& responder);
  void revoke_lease(const Request& request, const Responder& responder);
  void list_leases(const Request& request, const Responder& responder);
  void show_lease(const Request& request, const Responder& responder);

  void deploy_function(const Request& request, const Responder& responder);
  void show_function(const Request& request, const Responder& responder);
  void remove_function(const Request& request, const Responder& responder);
  void list_functions(const Request& request, const Responder& responder);
  void fetch_function(const Request& request, const Responder& responder);

  void health(const Request& request, const Responder& responder);
  void ready(const Request& request, const Responder& responder);
  void show_metrics(const Request& request, const Responder& responder);

  [[nodiscard]] static lease::Now now();
  void tick();
  /// After every request and tick: answers those whom a change concerns.
  void settle();
  void try_waiters();
  void end_overdue();
  void answer_poll(std::map<lease::NodeId, Poll>::iterator poll);
  /// Answers now, or waits up to `wait_ms` for the capacity that is missing.
  void grant_or_wait(const Responder& responder, std::uint64_t wait_ms, Attempt attempt);
  void answer_grant(const Responder& responder, const Result<api::LeaseGrant>& grant, TimePoint arrived);

  control::EventLoop& loop_;
  std::unique_ptr<FunctionStore> functions_;
  lease::LeaseTable table_;
  Metrics metrics_;
  std::list<Waiter> waiters_;
  std::map<lease::NodeId, Poll> polls_;
  std::uint64_t next_number_ = 1;
  TimePoint ticked_;
  bool closing_ = false;
};

}  // namespace sublet::manager
