#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "runtime/control/event_loop.hpp"
#include "runtime/control/http_server.hpp"
#include "runtime/lease/lease_table.hpp"
#include "runtime/lease/waiting.hpp"
#include "runtime/manager/file_thread.hpp"
#include "runtime/manager/function_store.hpp"
#include "runtime/manager/metrics.hpp"
#include "runtime/manager/site_clock.hpp"
#include "runtime/manager/slurm_orders.hpp"
#include "runtime/manager/store.hpp"

namespace sublet::manager {

/// The manager's HTTP API over its lease table and functions. What an answer promises is on the disk before
/// the answer leaves: requests change the table at once, one transaction after the other writes what has
/// changed meanwhile, and the answers wait for theirs. Thread safety: the loop's thread.
class Service {
 public:
  using Steady = std::function<TimePoint()>;

  /// Opens what `state_dir` holds of an earlier manager.
  /// @param steady What time it is, on a clock that never jumps.
  [[nodiscard]] static Result<std::unique_ptr<Service>> open(control::EventLoop& loop,
                                                             const std::filesystem::path& state_dir,
                                                             lease::Policy policy,
                                                             Steady steady = SteadyClock::now);

  [[nodiscard]] std::vector<control::Route> routes();
  [[nodiscard]] control::HttpServer::Observer observer();
  /// From now on time passes: tick() is called again and again.
  void start();
  /// Leases expire, silent nodes are lost, waiting requests end: what is due by now.
  void tick();
  /// What Slurm has just said of its nodes, or why it has not. Nothing is ordered before the first.
  void see_slurm(Result<slurm::Picture> seen);
  /// Answers whatever waits and writes what is left: the program is about to end. Then calls `done`.
  void shut_down(std::function<void()> done);

 private:
  using Request = control::HttpRequest;
  using Responder = control::Responder;

  struct Parts {
    std::unique_ptr<Store> store;
    std::unique_ptr<FunctionStore> functions;
    SiteClock clock;
    Loaded loaded;
    lease::Policy policy;
    Steady steady;
  };
  Service(control::EventLoop& loop, Parts parts);

  /// A request for capacity.
  struct Waiter {
    Responder responder;
    std::function<Result<api::LeaseGrant>()> attempt;
    std::function<lease::Shortage()> explain;
    bool replacement = false;
    TimePoint arrived;
  };
  /// A node's long request for commands.
  struct Poll {
    std::uint64_t number = 0;
    Responder responder;
    std::uint64_t after = 0;
  };
  /// An answer that waits for the disk.
  struct Promise {
    Responder responder;
    control::HttpReply reply;
    std::function<void()> undo;  ///< Takes back what could not be written.
    std::function<void()> then;  ///< When the promise is kept.
    bool synced = true;          ///< Waits for the disk, otherwise only for the system.
    bool urgent = true;          ///< The disk is asked at once, otherwise with its next turn.
    TimePoint made;
  };

  void add_node_routes(std::vector<control::Route>& routes);
  void add_lease_routes(std::vector<control::Route>& routes);
  void add_function_routes(std::vector<control::Route>& routes);
  void add_usage_routes(std::vector<control::Route>& routes);
  void add_service_routes(std::vector<control::Route>& routes);
  using Handler = void (Service::*)(const Request&, const Responder&);
  void add(std::vector<control::Route>& routes, std::string method, std::string pattern,
           std::size_t body_bytes_max, Handler handler);

  void register_node(const Request& request, const Responder& responder);
  void heartbeat(const Request& request, const Responder& responder);
  void drop_unknown(lease::NodeId node, const api::Heartbeat& said);
  void commands(const Request& request, const Responder& responder);
  void remove_node(const Request& request, const Responder& responder);
  void list_nodes(const Request& request, const Responder& responder);
  void show_node(const Request& request, const Responder& responder);
  void drain_node(const Request& request, const Responder& responder);
  void undrain_node(const Request& request, const Responder& responder);
  void cordon_node(const Request& request, const Responder& responder);
  void uncordon_node(const Request& request, const Responder& responder);

  void grant_lease(const Request& request, const Responder& responder);
  void renew_lease(const Request& request, const Responder& responder);
  void replace_worker(const Request& request, const Responder& responder);
  void release_lease(const Request& request, const Responder& responder);
  void revoke_lease(const Request& request, const Responder& responder);
  void list_leases(const Request& request, const Responder& responder);
  void show_lease(const Request& request, const Responder& responder);

  void deploy_function(const Request& request, const Responder& responder);
  void finish_deploy(const api::FunctionInfo& info, const Status& written, const Responder& responder);
  void show_function(const Request& request, const Responder& responder);
  void remove_function(const Request& request, const Responder& responder);
  void list_functions(const Request& request, const Responder& responder);
  void fetch_function(const Request& request, const Responder& responder);

  void show_usage(const Request& request, const Responder& responder);
  void show_tenants(const Request& request, const Responder& responder);

  void health(const Request& request, const Responder& responder);
  void ready(const Request& request, const Responder& responder);
  void show_metrics(const Request& request, const Responder& responder);

  // service_slurm.cpp
  void obey_slurm(lease::NodeId id);
  void forget_old_picture();
  void order_nodes(const std::map<std::string, lease::SiteOrder>& orders);
  [[nodiscard]] std::optional<std::chrono::milliseconds> slurm_age() const;

  /// The site's time.
  [[nodiscard]] lease::Time now() const { return clock_.at(steady_()); }
  /// After every request and tick: answers those whom a change concerns.
  void settle();
  void end_overdue();
  void answer_poll(std::map<lease::NodeId, Poll>::iterator poll);

  // service_waiting.cpp
  /// Grants now, or waits up to `wait_ms` for the capacity that is missing.
  void grant_or_wait(const std::string& tenant, std::uint64_t wait_ms, Waiter waiter);
  void try_waiters();
  [[nodiscard]] bool try_grant(const Waiter& waiter, bool last);
  void refuse(const Waiter& waiter, const Error& error);

  // service_writing.cpp
  /// True, and answered, while the disk cannot be written: nothing new is promised then.
  [[nodiscard]] bool refuse_unwritable(const Responder& responder);
  /// Sends `reply` once everything that has changed until now is synced: it outlives the loss of power.
  void promise(const Responder& responder, control::HttpReply reply, std::function<void()> undo = {},
               std::function<void()> then = {});
  /// The same, but the disk is not asked for it alone: within database_sync_interval. For what comes often.
  void promise_soon(const Responder& responder, control::HttpReply reply);
  /// Sends `reply` once it is written: it outlives the manager. For leases: should the machine lose its
  /// power within the next moment, their workers are ended as unknown, and nothing else is lost.
  void promise_lease(const Responder& responder, control::HttpReply reply, std::function<void()> undo = {});
  [[nodiscard]] bool anything_to_write() const noexcept;
  void write_soon();
  void write_now();
  void on_written(const Status& written);
  void on_synced(std::uint64_t writes, const Status& synced);
  void keep(Promise promise);
  void fail(const std::vector<Promise>& promises, const std::string& why);
  /// Whether the disk keeps answers waiting: then nodes are silent through no fault of theirs.
  [[nodiscard]] bool disk_is_slow(TimePoint now) const noexcept;
  void forget_function(std::uint32_t id);
  void end_if_done();

  /// What Slurm last said.
  struct Slurm {
    std::optional<slurm::Picture> picture;
    lease::Time picture_time{};
    TimePoint seen_at;
    slurm::Suspects suspects;
    bool failing = false;  ///< Since the last look that went well.
  };

  control::EventLoop& loop_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<FunctionStore> functions_;
  Steady steady_;
  SiteClock clock_;
  lease::LeaseTable table_;
  Metrics metrics_;
  lease::Waiting waiting_;
  Slurm slurm_;
  std::unordered_map<std::uint64_t, Waiter> waiters_;
  std::map<lease::NodeId, Poll> polls_;
  std::deque<std::tuple<TimePoint, lease::NodeId, std::uint64_t>> poll_ends_;  ///< By time: all wait as long.
  std::map<std::uint32_t, std::weak_ptr<const std::string>>
      cached_;                                               ///< Functions' bytes, while they are sent.
  std::map<std::uint32_t, std::vector<Responder>> readers_;  ///< Wait for a function's bytes.
  std::uint64_t next_number_ = 1;
  std::size_t usage_queries_ = 0;
  TimePoint ticked_;
  lease::Time started_;

  Batch pending_;  ///< What the table does not know: functions and usage; after a failure all of it.
  std::vector<Promise> promises_;
  std::vector<Promise> written_promises_;                  ///< Of the transaction under way.
  std::deque<std::pair<std::uint64_t, Promise>> syncing_;  ///< Written, with the number of the transaction.
  std::uint64_t writes_ = 0;
  std::shared_ptr<Batch> writing_;  ///< The transaction under way.
  bool write_posted_ = false;
  bool sync_failed_ = false;  ///< What the system has may never reach the disk.
  bool settling_ = false;
  bool settle_again_ = false;
  std::optional<std::string> unwritable_;  ///< Why, since when the disk could not be written.
  TimePoint write_again_at_;
  TimePoint write_began_;
  bool closing_ = false;
  std::function<void()> closed_;
  FileThread files_;  ///< The last: its jobs post to what is above.
};

}  // namespace sublet::manager
