#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "executor/local/messages.hpp"
#include "executor/worker/invoker.hpp"
#include "executor/worker/module.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/memory/region.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::worker {

/// What the main thread is asked to do: functions are loaded and run on it alone.
struct Task {
  enum class Kind : std::uint8_t { load, serve, leave } kind = Kind::leave;
  std::string path;            ///< Of load.
  Invoker* invoker = nullptr;  ///< Of serve.
};

/// One transport of the worker with its registered memory.
struct Opened {
  std::unique_ptr<transport::Transport> transport;
  transport::RemoteRegion input;
  std::string address;
};

/// The worker's second thread: lets the one client in, keeps heartbeats going, watches deadlines and the
/// lease's end, listens to the agent. It never runs the user's code.
class Steward {
 public:
  Steward(const local::Fork& spec, int agent, std::vector<Opened>& transports, const memory::Region& input,
          const memory::Region& output, local::UsageRecord& usage);

  /// A function that was loaded before the worker is published. Before run().
  void preloaded(Module module) noexcept { module_ = std::move(module); }
  /// The thread's body: returns when the worker shall leave.
  void run();

  // For the main thread:
  [[nodiscard]] Task next_task();
  void loaded(Result<Module> module);
  void served(Stop stop);
  [[nodiscard]] const Module& module() const noexcept { return module_; }

 private:
  enum class Phase : std::uint8_t { waiting, asking, loading, serving, leaving };
  struct Candidate {
    Opened* opened = nullptr;
    std::uint64_t request = 0;
    wire::Token token;
    wire::Layout layout;
  };

  void wait();
  void serve_transports();
  void on_request(Opened& opened, const transport::ConnectRequest& request);
  [[nodiscard]] Result<Candidate> check(Opened& opened, const transport::ConnectRequest& request) const;
  void refuse(const Error& error);
  void read_agent();
  void on_attached(const local::Attached& attached);
  void on_end(local::EndReason reason);
  void take_events();
  void on_loaded(Result<Module> module);
  void accept();
  void watch();
  void watch_running(TimePoint now);
  void check_renewal();
  [[noreturn]] void end_now(local::EndReason reason);
  void leave(local::EndReason reason, std::string_view text);
  void give(Task task);
  [[nodiscard]] local::EndReason reason_of(Stop stop) const noexcept;

  const local::Fork& spec_;
  const int agent_;
  std::vector<Opened>& transports_;
  const memory::Region& input_;
  const memory::Region& output_;
  local::UsageRecord& usage_;

  Phase phase_ = Phase::waiting;
  std::optional<Candidate> candidate_;
  std::unique_ptr<Invoker> invoker_;
  Module module_;
  TimePoint lease_end_ = TimePoint::max();
  std::uint64_t renewals_seen_ = 0;
  std::optional<local::EndReason> ordered_;  ///< Why the worker was told to stop.
  FileDescriptor events_;                    ///< Readable when the main thread has left something.

  std::mutex mutex_;
  std::condition_variable task_ready_;
  std::optional<Task> task_;
  std::optional<Result<Module>> loaded_;
  std::optional<Stop> served_;
};

}  // namespace sublet::worker
