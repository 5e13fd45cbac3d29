#pragma once

// Inside of Store, for its source files only.

#include <string_view>

#include "runtime/base/file_descriptor.hpp"
#include "runtime/manager/sqlite.hpp"
#include "runtime/manager/store.hpp"

namespace sublet::manager {

/// The statements of a transaction.
class Writer {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Writer>> create(sqlite3* database);
  /// One transaction; after an error nothing of it was written.
  [[nodiscard]] Status write(const Batch& batch);
  void keep_ended(std::uint64_t most) noexcept { ended_max_ = most; }

 private:
  explicit Writer(sqlite3* database) : database_(database) {}
  [[nodiscard]] Status write_all(const Batch& batch);
  [[nodiscard]] Status write_nodes(const lease::Rows& rows);
  [[nodiscard]] Status write_leases(const lease::Rows& rows);
  [[nodiscard]] Status write_held(const lease::Rows& rows);
  [[nodiscard]] Status write_functions(const Batch& batch);
  [[nodiscard]] Status write_usage(const Batch& batch);
  [[nodiscard]] Status fold_oldest();

  sqlite3* database_;
  std::uint64_t ended_ = 0;  ///< Leases that have ended and are not folded.
  std::uint64_t ended_max_ = UINT64_MAX;
  sqlite::Statement begin_;
  sqlite::Statement commit_;
  sqlite::Statement node_;
  sqlite::Statement node_gone_;
  sqlite::Statement order_;
  sqlite::Statement order_gone_;
  sqlite::Statement lease_;
  sqlite::Statement held_;
  sqlite::Statement held_gone_;
  sqlite::Statement function_;
  sqlite::Statement function_gone_;
  sqlite::Statement next_function_;
  sqlite::Statement usage_;
  sqlite::Statement meta_;
};

struct Store::Impl {
  ~Impl();
  void start();
  void write_loop();
  void sync_loop();
  [[nodiscard]] Status sync();
  void shrink_log();

  sqlite::Handle database;  ///< The writer's.
  sqlite::Handle reader;
  sqlite::Handle checkpointer;
  std::unique_ptr<Writer> writer;
  FileDescriptor log;  ///< The write-ahead log, to sync it.

  std::mutex mutex;
  std::condition_variable changed;
  std::shared_ptr<const Batch> batch;
  std::function<void(const Status&)> done;
  std::function<void(std::uint64_t, const Status&)> synced_call;
  std::uint64_t written = 0;  ///< Transactions.
  std::uint64_t synced = 0;
  bool urgent = false;
  int log_pages = 0;         ///< In the log, as of the last transaction.
  bool restart_log = false;  ///< The log has been copied but for its end: the writer may begin it anew.
  bool stopping = false;
  std::thread write_thread;
  std::thread sync_thread;
};

inline constexpr int database_busy_ms = 5000;  ///< Somebody may look at the file with other tools.

inline constexpr const char* meta_last = "last_ns";
inline constexpr const char* meta_next_id = "next_id";
inline constexpr const char* meta_next_function = "next_function";
inline constexpr const char* meta_boot = "boot_id";
inline constexpr const char* meta_clock = "clock_ns";

}  // namespace sublet::manager
