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
  explicit ManagerLink(const Options& options);
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
  /// Reports now what the node's workers do. `ended` is kept until a manager has answered for it.
  void publish(api::Heartbeat heartbeat);
  /// Brings the function's library to this node; the answer is an event.
  void fetch(std::uint32_t function);
  /// Takes the node out at the manager, within `timeout`, and ends the threads.
  void leave(std::chrono::milliseconds timeout);

 private:
  enum class Outcome { done, unknown_node, failed };

  void report_loop();
  [[nodiscard]] Outcome report_once(control::HttpClient& client);
  [[nodiscard]] bool register_node(control::HttpClient& client);
  void command_loop();
  void fetch_loop();
  [[nodiscard]] Result<std::string> fetch_now(control::HttpClient& client, std::uint32_t function);
  void notify(const std::unique_lock<std::mutex>& held);
  /// Waits for the back-off after `failures` failures or the end; false at the end.
  [[nodiscard]] bool pause(int failures);

  const Options& options_;
  FileDescriptor ready_;
  std::unique_ptr<control::HttpClient> report_client_;
  std::unique_ptr<control::HttpClient> command_client_;
  std::unique_ptr<control::HttpClient> fetch_client_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::uint64_t node_ = 0;  ///< 0: not registered.
  std::optional<std::string> key_text_;
  api::Heartbeat heartbeat_;
  bool dirty_ = false;
  std::vector<std::uint32_t> to_fetch_;
  Events events_;
  std::vector<std::thread> threads_;
};

}  // namespace sublet::agent
