#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "runtime/base/clock.hpp"

/// A whole site of real processes on this machine: a manager and its agents on free ports, in a
/// directory of its own. All ends with the fixture; so does everything when the test is killed.
namespace sublet::test {

/// One child process, with its output in a file.
class Process {
 public:
  Process() noexcept = default;
  Process(std::vector<std::string> arguments, const std::string& log_file);
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;
  ~Process();

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  void signal(int number) const;
  /// Waits for its end: the exit code, or 128 + the signal. Kills it after `wait_max`: -1.
  int wait(std::chrono::milliseconds wait_max = std::chrono::seconds(20));

 private:
  pid_t pid_ = -1;
};

/// Calls `done` every few milliseconds until it is true: false when that takes longer than `wait_max`.
[[nodiscard]] bool eventually(const std::function<bool()>& done,
                              std::chrono::milliseconds wait_max = std::chrono::seconds(20));

class SiteFixture {
 public:
  SiteFixture();
  ~SiteFixture();
  SiteFixture(const SiteFixture&) = delete;
  SiteFixture& operator=(const SiteFixture&) = delete;

  /// Starts an agent that lends `cores` (workers may share the machine's) and waits until it has a warm
  /// worker. @param options More of the agent's own options.
  Process& start_agent(const std::string& name, unsigned cores, std::vector<std::string> options = {});
  [[nodiscard]] Process& agent(std::size_t index) { return agents_.at(index); }
  [[nodiscard]] Process& manager() { return manager_; }
  /// Starts the manager again on the same port and state after it has ended.
  void restart_manager();

  [[nodiscard]] const std::string& url() const noexcept { return url_; }
  [[nodiscard]] const std::string& directory() const noexcept { return directory_; }
  /// Worker processes below an agent, without its template.
  [[nodiscard]] std::vector<pid_t> workers_of(const Process& agent) const;

  /// Paths of what the build made.
  [[nodiscard]] static std::string program(const std::string& name);
  [[nodiscard]] static std::string probe_function();

 private:
  void start_manager(const std::string& port);

  std::string directory_;
  std::string url_;
  std::string port_;
  Process manager_;
  std::vector<Process> agents_;
};

}  // namespace sublet::test
