#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "executor/agent/options.hpp"
#include "executor/agent/site_clock.hpp"
#include "executor/agent/usage_book.hpp"
#include "runtime/base/digest.hpp"
#include "runtime/base/file_descriptor.hpp"
#include "runtime/control/api.hpp"
#include "runtime/control/http_client.hpp"

namespace sublet::agent {

/// The agent's side of the manager's API: registers, reports, holds the long request, fetches functions;
/// each on a thread of its own, so that the agent's loop never waits for the network. Comes back by itself
/// when the manager was away, with jittered back-off. Thread safety: all public calls from one thread.
class ManagerLink {
 public:
  ManagerLink(const Options& options, UsageBook& usage);
  ManagerLink(const ManagerLink&) = delete;
  ManagerLink& operator=(const ManagerLink&) = delete;
  ~ManagerLink();

  struct Registered {
    SecretKey key{};
  };
  struct Fetched {
    std::uint32_t function = 0;
    Result<std::string> path = Errc::not_found;  ///< Of the file in the state directory, its digest checked.
  };
  struct Events {
    std::optional<Registered> registered;
    std::vector<api::Command> commands;
    std::vector<Fetched> fetched;
  };

  /// @retval Errc::invalid_argument when the manager's address is none.
  [[nodiscard]] Status start();
  /// Readable when take_events() has something.
  [[nodiscard]] int descriptor() const noexcept { return ready_.get(); }
  [[nodiscard]] Events take_events();
  /// What was taken has been done: only then the manager hears that this node has its commands.
  void obeyed();
  /// Reports now what the node's workers do. `ended` is kept until a manager has answered for it.
  void publish(api::Heartbeat heartbeat);
  /// Brings the function's library to this node; the answer is an event. A failure is one too, and is
  /// tried again until it succeeds, the manager has no such function or forget() is called.
  void fetch(std::uint32_t function);
  void forget(std::uint32_t function);
  /// When it is `time_ms` by the manager's clock; nothing before it has answered for the first time.
  [[nodiscard]] std::optional<TimePoint> when(std::uint64_t time_ms);
  /// Says what is left to say, takes the node out at the manager, each within `timeout`, and ends the
  /// threads.
  void leave(std::chrono::milliseconds timeout);

 private:
  struct Wanted {
    std::uint32_t function = 0;
    int failures = 0;
    TimePoint at;  ///< Not before.
  };
  using WantedList = std::vector<Wanted>;

  void report_loop();
  [[nodiscard]] Status report_once(control::HttpClient& client);
  [[nodiscard]] Status register_node(control::HttpClient& client);
  void command_loop();
  void fetch_loop();
  /// Waits until a function is to be fetched; nothing at the end.
  [[nodiscard]] std::optional<std::uint32_t> next_to_fetch();
  [[nodiscard]] WantedList::iterator find_wanted(std::uint32_t function);
  [[nodiscard]] Result<std::string> fetch_now(control::HttpClient& client, std::uint32_t function);
  void notify(const std::unique_lock<std::mutex>& held);
  /// Drops of what has ended the first `until`, counted from the first that there ever was.
  void forget_ended(std::uint64_t until);
  /// Waits for the back-off after `failures` failures or the end; false at the end.
  [[nodiscard]] bool pause(int failures);

  const Options& options_;
  UsageBook& usage_;
  FileDescriptor ready_;
  std::unique_ptr<control::HttpClient> report_client_;
  std::unique_ptr<control::HttpClient> command_client_;
  std::unique_ptr<control::HttpClient> fetch_client_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool leaving_ = false;  ///< What is left to say is said at once.
  bool stopping_ = false;
  std::uint64_t node_ = 0;  ///< 0: not registered.
  std::optional<std::string> key_text_;
  api::Heartbeat heartbeat_;
  std::uint64_t ended_gone_ = 0;  ///< How many have gone from the front of heartbeat_.ended.
  bool dirty_ = false;
  bool lists_known_ = false;     ///< The manager has heartbeat_'s lists by its own answer.
  std::uint64_t published_ = 0;  ///< How often the lists have changed.
  SiteClock clock_;
  WantedList to_fetch_;
  Events events_;
  bool obeying_ = false;  ///< Commands are on their way to the agent or being obeyed.
  std::vector<std::thread> threads_;
};

}  // namespace sublet::agent
