#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "executor/local/usage_page.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/result.hpp"
#include "runtime/control/api.hpp"

namespace sublet::agent {

/// What the node's workers have counted, until the manager has answered for it: a file for each worker in
/// one directory, so that nothing is lost when worker and agent are killed. A file's name is the worker's
/// number for accounts and, from the moment it gets a lease, the lease's: "ID" or "ID.LEASE". Totals never
/// run backwards and never exceed what the worker's age allows, whatever its code writes into its page.
/// Thread safety: all calls from any thread; none waits for longer than the reading of all pages.
class UsageBook {
 public:
  explicit UsageBook(std::string directory) : directory_(std::move(directory)) {}

  /// Makes the directory and takes up what an agent that was killed has left there.
  /// @retval Errc::io_error with what to do.
  [[nodiscard]] Status open();

  struct Page {
    std::uint64_t id = 0;
    int descriptor = -1;  ///< For the worker. The book's: good until end().
  };
  /// A page for a worker that is about to be born.
  [[nodiscard]] Result<Page> create();
  /// The worker got its lease: from here on what it counts is reported. Once for each worker.
  [[nodiscard]] Status begin(std::uint64_t id, std::uint64_t lease);
  /// The worker's process has gone, or was never born: its last numbers are kept until they are answered.
  void end(std::uint64_t id);

  /// Totals that no answered heartbeat has carried, at most node_workers_max of them; others come next time.
  [[nodiscard]] std::vector<api::WorkerUsage> changed();
  /// A heartbeat with these was answered: they are the manager's now.
  void answered(const std::vector<api::WorkerUsage>& reported);
  /// True when the manager has the last word of every worker that had a lease.
  [[nodiscard]] bool settled() const;

 private:
  enum class Owner : std::uint8_t {
    agent,     ///< This agent's worker: end() will come.
    orphaned,  ///< Of an agent that was killed; the process may count on for a moment.
    gone,      ///< Read for the last time.
  };
  struct Entry {
    FileDescriptor file;
    Owner owner = Owner::agent;
    TimePoint since = TimePoint::min();  ///< No worker's call or wait began before.
    api::WorkerUsage total;
    api::WorkerUsage told;
    bool ever_told = false;
  };
  using Entries = std::map<std::uint64_t, Entry>;

  [[nodiscard]] std::string path_of(std::uint64_t id, std::uint64_t lease) const;
  void recover();
  void recover_file(const std::string& name);
  void read(Entry& entry, TimePoint now);
  void close(Entries::iterator entry);
  [[nodiscard]] static bool is_news(const Entry& entry);

  const std::string directory_;
  mutable std::mutex mutex_;
  Entries entries_;
  std::size_t gone_ = 0;    ///< Entries without a process.
  bool left_over_ = false;  ///< Files lie in the directory that are not in entries_: there were too many.
  std::uint64_t cursor_ = 0;
};

/// Where a state directory keeps what the manager at this address is to hear of: another one's books know
/// nothing of the leases.
[[nodiscard]] std::string usage_directory(const std::string& state_dir, const std::string& manager);
/// The directories of this state directory that hold usage for managers other than this one.
[[nodiscard]] std::vector<std::string> usage_of_others(const std::string& state_dir,
                                                       const std::string& manager);
/// Moves what a killed agent's directory still has to report into another one of the same file system, so
/// that the first can be removed.
[[nodiscard]] Status adopt_usage(const std::string& from, const std::string& to);
/// True when the directory holds usage of leases that no manager has answered for.
[[nodiscard]] bool holds_usage(const std::string& directory);

}  // namespace sublet::agent
