#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <vector>

#include "benchmarks/chaos/ledger.hpp"
#include "benchmarks/chaos/processes.hpp"
#include "benchmarks/chaos/schedule.hpp"
#include "benchmarks/process.hpp"
#include "runtime/base/clock.hpp"

namespace sublet::bench::chaos {

struct SiteShape {
  std::uint32_t agents = 3;
  std::uint32_t clients = 4;
  std::uint64_t seed = 0;
};

/// One client process that has been: its ledger is judged at the end.
struct ClientRun {
  Ledger ledger;
  bool killed = false;  ///< Its calls under way have no final status.
};

/// A manager, agents and clients as processes that are killed, stopped and started again. Each keeps its
/// state directory: usage of workers that were killed with their agent lies in the agent's.
class Site {
 public:
  Site(const SiteShape& shape, std::filesystem::path directory);

  void start_manager_and_agents();
  void start_clients();
  void perform(const Act& act);
  /// Starts what is due to be started and continues what is due to go on. Call often.
  void tick();
  /// Continues and starts whatever is stopped or away.
  void mend();
  /// All run.
  [[nodiscard]] bool whole();
  /// SIGTERM to the clients; one that is still there after `time` is a fault.
  void finish_clients(std::chrono::milliseconds time);
  /// SIGTERM to all. False when one is still there after `time`.
  [[nodiscard]] bool stop_all(std::chrono::milliseconds time);

  [[nodiscard]] std::string url() const { return "http://127.0.0.1:" + port_; }
  [[nodiscard]] std::size_t manager_files() { return open_files(manager_.process.pid()); }
  /// Of the agent that has most.
  [[nodiscard]] std::size_t agent_files();
  [[nodiscard]] std::string list_files();
  [[nodiscard]] const std::vector<ClientRun>& runs() const noexcept { return runs_; }
  [[nodiscard]] const std::vector<std::string>& history() const noexcept { return history_; }
  /// What went wrong meanwhile, such as a process that ended by itself.
  [[nodiscard]] const std::vector<std::string>& faults() const noexcept { return faults_; }
  [[nodiscard]] std::string logs() const;
  [[nodiscard]] const std::filesystem::path& directory() const noexcept { return directory_; }

 private:
  struct Member {
    std::string name;
    Process process;
    bool wanted = false;  ///< Its absence is a fault.
    bool stopped = false;
    std::optional<TimePoint> leave_by;  ///< SIGTERM has been sent.
    std::size_t run = 0;                ///< Of a client.
  };
  struct Task {
    TimePoint time;
    std::function<void()> run;

    bool operator<(const Task& other) const noexcept { return time > other.time; }
  };

  void start(Member& member);
  void start_manager();
  void start_agent(Member& member);
  void start_client(Member& member);
  void perform_on(Member& member, const Act& act);
  void perform_on_worker(const Act& act);
  void go_on(Member& member);
  void later(std::chrono::milliseconds time, std::function<void()> task);
  void note(const std::string& text);
  void check(Member& member);
  [[nodiscard]] Member& member_of(const Act& act);
  [[nodiscard]] std::vector<Member*> members();

  SiteShape shape_;
  std::filesystem::path directory_;
  std::string port_ = "0";
  TimePoint begun_ = SteadyClock::now();
  Member manager_;
  std::vector<Member> agents_;
  std::vector<Member> clients_;
  std::vector<ClientRun> runs_;
  std::priority_queue<Task> tasks_;
  std::vector<std::string> history_;
  std::vector<std::string> faults_;
};

}  // namespace sublet::bench::chaos
