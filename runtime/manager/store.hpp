#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "runtime/base/result.hpp"
#include "runtime/control/api.hpp"
#include "runtime/lease/rows.hpp"

namespace sublet::manager {

/// What a node says of one of its workers. It counts where the node has lent the lease one.
struct Account {
  lease::Lender from;
  api::WorkerUsage used;
};

/// What one transaction writes.
struct Batch {
  lease::Rows rows;
  std::vector<api::FunctionInfo> functions;
  std::vector<std::uint32_t> functions_gone;
  std::vector<Account> usage;
  lease::Time now{};           ///< When it was taken.
  std::uint64_t first_id = 0;  ///< Ids from here on may be given out next.
  bool urgent = false;         ///< Somebody waits for it to be synced.

  [[nodiscard]] bool empty() const noexcept {
    return rows.empty() && functions.empty() && functions_gone.empty() && usage.empty();
  }
  /// Puts `later` behind this one.
  void append(Batch&& later);
};

/// What a restarted manager finds.
struct Loaded {
  lease::Saved saved;
  std::vector<api::FunctionInfo> functions;
  std::uint32_t next_function = 1;
  std::uint64_t next_id = 1;
  lease::Time last{};                ///< Of the newest transaction.
  std::string boot_id;               ///< Of the machine then; empty: nothing was written yet.
  std::chrono::nanoseconds clock{};  ///< The site's time less the machine's monotonic clock, in that boot.
};

/// What to account for, and how.
struct UsageQuery {
  enum class By { lease, worker, tenant, function };
  By by = By::tenant;
  std::string tenant;        ///< Empty: all.
  std::string function;      ///< "name@version", or "name" for all versions; empty: all.
  lease::LeaseId after = 0;  ///< by lease and worker: the next leases in order of their ids.
  std::uint32_t limit = 0;   ///< Rows.
};

/// The manager's database: SQLite in WAL mode. A transaction is *written* once the system has it: it
/// survives the death of the manager. It is *synced* once the disk has it (fsync): it survives the loss of
/// power too. Writes go through one thread, one transaction at a time; a second one syncs, the next
/// transactions meanwhile going on; queries have a connection of their own and wait for nobody. The file
/// holds the nodes' keys: only its owner can read it.
class Store {
 public:
  /// Opens or makes the file, checks that it is ours and whole.
  /// @retval Errc::io_error It cannot be read or written, is damaged, is no database of Sublet's or was
  ///                        written by a newer version; the message says what to do.
  [[nodiscard]] static Result<std::unique_ptr<Store>> open(const std::filesystem::path& file);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  /// Before the first write.
  [[nodiscard]] Result<Loaded> load();
  /// Ties the site's clock to this boot of the machine, at once.
  [[nodiscard]] Status set_clock(const std::string& boot_id, std::chrono::nanoseconds clock);

  /// Called on the sync thread: the first `writes` transactions are synced, or why they are not.
  /// Before the first write.
  void on_synced(std::function<void(std::uint64_t writes, const Status& synced)> call);
  /// Writes in the background and calls `done` on the writer's thread: ok once it is written, otherwise
  /// nothing of it was. @pre No other write is under way.
  void write(std::shared_ptr<const Batch> batch, std::function<void(const Status&)> done);
  /// Somebody waits for what is written to be synced: the disk is asked now rather than within
  /// database_sync_interval. Any thread.
  void hurry();
  /// Folds the leases that ended longest ago into totals until at most `ended_max` are left, a bounded
  /// number with each write. Before the first write.
  void keep_ended(std::uint64_t ended_max) noexcept;

  /// Ends a usage() under way, which then fails. Any thread.
  void interrupt() noexcept;
  /// Any thread, one at a time.
  [[nodiscard]] Result<std::vector<api::UsageRow>> usage(const UsageQuery& query, lease::Time now);

  struct Impl;
  explicit Store(std::unique_ptr<Impl> impl);

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace sublet::manager
