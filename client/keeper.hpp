#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "client/backoff.hpp"
#include "client/endpoint.hpp"
#include "client/lease_state.hpp"
#include "client/manager_client.hpp"
#include "runtime/transport/transport.hpp"
#include "runtime/wire/handshake.hpp"

namespace sublet::client {

/// The thread of a lease: it is the service thread of the lease's transports (heartbeats, deaths,
/// connects), renews the lease and puts replacements in the place of lost workers. Requests to the manager
/// run in a second thread for their time, because heartbeats must go on meanwhile.
class Keeper {
 public:
  Keeper(LeaseState& lease, std::string url, std::chrono::milliseconds timeout);
  ~Keeper();
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  /// Connects the granted workers, for a moment in the caller's thread, and keeps the lease from then on.
  [[nodiscard]] Status start(const api::LeaseGrant& grant, TimePoint granted);
  /// Waits until every worker is connected: the first error that waiting does not mend, or unavailable
  /// with the last error when `until` has come.
  [[nodiscard]] Status wait_connected(TimePoint until);
  /// Ends a request under way, the thread and, after it, all connections. Idempotent.
  void stop() noexcept;

 private:
  struct Opened {
    std::string name;
    std::unique_ptr<transport::Transport> transport;
    transport::RemoteRegion region;
  };
  /// One worker's place in the lease.
  struct Place {
    enum class State : std::uint8_t { granted, connecting, connected, lost, replacing };
    State state = State::granted;
    api::GrantedWorker grant;
    Backoff backoff;
    TimePoint next_attempt;
    std::vector<Way> ways{};    ///< Connecting: the one under way, then those left to try.
    Choice choice{};            ///< Connecting: what became of those before.
    std::uint64_t attempt = 0;  ///< Connecting: its number in the transport.
  };
  /// A request to the manager that runs beside the keeper.
  struct Errand {
    enum class Kind : std::uint8_t { renew, replace };
    Kind kind = Kind::renew;
    std::size_t place = 0;
    TimePoint sent;
    std::atomic<bool> done{false};
    std::optional<Result<api::LeaseGrant>> renewed;
    std::optional<Result<api::GrantedWorker>> replacement;
    std::thread thread;
  };

  void run() noexcept;
  void connect_first() noexcept;
  void sleep(TimePoint until) noexcept;
  [[nodiscard]] TimePoint next_duty() const noexcept;
  void service() noexcept;
  void sweep() noexcept;
  void note_lost(const std::vector<LostWorker>& lost) noexcept;
  void connect_granted() noexcept;
  /// Begins with the first of the ways left; notes `last` when there is none.
  void try_ways(Place& place, Error last);
  [[nodiscard]] Status start_attempt(Place& place);
  void take_attempt(std::size_t index, Place& place);
  [[nodiscard]] Status join_lease(std::size_t index, const Place& place,
                                  transport::Transport::Connected connected);
  [[nodiscard]] std::chrono::milliseconds patience() const noexcept;
  [[nodiscard]] Result<wire::Hello> hello_to(const api::GrantedWorker& grant) const;
  [[nodiscard]] Result<Opened*> opened(const std::string& transport);
  void note_failed(const Error& error, Place& place);
  void publish();

  void run_errands() noexcept;
  void start_errand(Errand::Kind kind, std::size_t place);
  void finish_errand();
  void take_renewal(const Errand& errand);
  void take_replacement(const Errand& errand);
  void adopt(const api::GrantedWorker& worker);
  void end_lease(Errc reason);
  [[nodiscard]] std::chrono::milliseconds errand_timeout() const noexcept;

  LeaseState& lease_;
  std::string url_;
  std::chrono::milliseconds timeout_;
  std::unique_ptr<ManagerClient> manager_;
  std::thread thread_;
  std::atomic<bool> stop_{false};

  // The keeper's thread, once it runs.
  std::vector<Opened> transports_;
  std::vector<Place> places_;
  std::unique_ptr<Errand> errand_;
  std::string machine_;
  std::chrono::milliseconds ttl_{0};
  TimePoint renew_at_;
  TimePoint wanted_until_;  ///< The user waits for the lease's first connections until then.
  Backoff renew_backoff_;
  bool ended_ = false;

  // For wait_connected().
  std::mutex mutex_;
  std::condition_variable changed_;
  bool all_connected_ = false;
  std::optional<Error> fatal_;
  std::optional<Error> last_;
};

}  // namespace sublet::client
