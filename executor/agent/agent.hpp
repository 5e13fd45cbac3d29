#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "executor/agent/core_allocator.hpp"
#include "executor/agent/ended_leases.hpp"
#include "executor/agent/manager_link.hpp"
#include "executor/agent/options.hpp"
#include "executor/agent/order_socket.hpp"
#include "executor/agent/usage_book.hpp"
#include "executor/agent/worker_process.hpp"

namespace sublet::agent {

/// The node daemon: keeps warm workers, gives leases their cores and memory, notices what ends, drains.
/// One thread; run() returns the exit status.
class Agent {
 public:
  explicit Agent(Options options);
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;
  ~Agent();

  [[nodiscard]] int run();

 private:
  using State = WorkerProcess::State;

  [[nodiscard]] Status set_up();
  [[nodiscard]] Status start_template();
  void watch_worker(const WorkerProcess& worker);
  void wait();
  void on_signals();
  void reap();
  void on_worker_gone(WorkerProcess& worker, int status);
  void on_template();
  void on_worker_socket(WorkerProcess& worker);
  void on_packet(WorkerProcess& worker, const local::Packet& packet);
  void on_attach(WorkerProcess& worker, const wire::Token& token);
  void try_attach(WorkerProcess& worker);
  void answer(WorkerProcess& worker, const Status& granted, const std::string& path);
  [[nodiscard]] Status enforce(WorkerProcess& worker);
  void free_share(WorkerProcess& worker);
  void on_link();
  void on_command(const api::Command& command);
  void end_worker(WorkerProcess& worker, local::EndReason reason);
  void retry_attaching();
  void start_drain();
  void check_times();

  // lending.cpp
  void watch_asker(int descriptor);
  void on_asker_comes();
  void on_asker(int descriptor);
  [[nodiscard]] Status lend(const local::Lend& order);
  void end_beyond_lent();
  void tell_when_lent();
  void bind_idle();
  void end_strays();
  [[nodiscard]] std::vector<int> machine_cores(const std::vector<int>& cores) const;
  [[nodiscard]] std::uint32_t idle_max(std::uint32_t function) const;

  // pool.cpp
  void fill_pool();
  void start_worker(std::uint32_t function);
  [[nodiscard]] std::uint32_t count(State state, std::uint32_t function) const;
  void remember_function(std::uint32_t function);
  void publish();

  Options options_;
  CoreAllocator cores_;
  std::uint64_t memory_lent_;
  std::uint64_t memory_held_ = 0;
  UsageBook usage_;
  ManagerLink link_;
  FileDescriptor epoll_;
  FileDescriptor signals_;
  FileDescriptor template_socket_;
  pid_t template_pid_ = -1;
  std::optional<TimePoint> template_again_at_;
  std::optional<SecretKey> key_;
  std::uint32_t next_worker_ = 1;
  std::map<std::uint32_t, WorkerProcess> workers_;
  std::map<std::uint32_t, std::string> functions_;  ///< Fetched: number to path.
  EndedLeases ended_leases_;
  std::vector<std::uint32_t> recent_;         ///< Functions that leases used last, newest first.
  std::vector<api::Heartbeat::Ended> ended_;  ///< Not published yet.
  std::uint32_t failed_starts_ = 0;
  std::optional<TimePoint> start_again_at_;
  OrderSocket orders_;
  std::map<int, FileDescriptor> askers_;  ///< Connections of those that may give an order.
  int awaits_ = -1;                       ///< Of these the one that waits until its order is carried out.
  std::set<std::uint32_t> leaving_lent_;  ///< Workers that have to go before it is.
  bool lends_by_order_ = false;           ///< What it lends is not, or may not stay, what it registers.
  bool draining_ = false;
  bool leaving_ = false;
  bool changed_ = false;
};

}  // namespace sublet::agent
