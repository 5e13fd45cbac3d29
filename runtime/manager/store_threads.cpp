// The two threads of Store: one writes transactions, one brings them to the disk.

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "runtime/base/clock.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/manager/store_impl.hpp"

namespace sublet::manager {

void Store::Impl::start() {
  // Called on the writer's thread, after each of its transactions.
  sqlite3_wal_hook(
      database.get(),
      [](void* impl, sqlite3*, const char*, int pages) {
        const std::lock_guard lock(static_cast<Impl*>(impl)->mutex);
        static_cast<Impl*>(impl)->log_pages = pages;
        return SQLITE_OK;
      },
      this);
  write_thread = std::thread([this] { write_loop(); });
  sync_thread = std::thread([this] { sync_loop(); });
}

Store::Impl::~Impl() {
  {
    const std::lock_guard lock(mutex);
    stopping = true;
  }
  changed.notify_all();
  if (write_thread.joinable()) write_thread.join();
  if (sync_thread.joinable()) sync_thread.join();
}

void Store::on_synced(std::function<void(std::uint64_t, const Status&)> call) {
  const std::lock_guard lock(impl_->mutex);
  impl_->synced_call = std::move(call);
}

void Store::hurry() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->urgent = true;  // Also for a transaction that is being written.
  }
  impl_->changed.notify_all();
}

void Store::write(std::shared_ptr<const Batch> batch, std::function<void(const Status&)> done) {
  {
    const std::lock_guard lock(impl_->mutex);
    SUBLET_ASSERT(!impl_->batch);
    impl_->batch = std::move(batch);
    impl_->done = std::move(done);
  }
  impl_->changed.notify_all();
}

void Store::Impl::write_loop() {
  std::unique_lock lock(mutex);
  for (;;) {
    changed.wait(lock, [this] { return batch || stopping; });
    if (!batch) return;  // What was given is written before the end.
    const std::shared_ptr<const Batch> work = std::exchange(batch, nullptr);
    const std::function<void(const Status&)> tell = std::exchange(done, nullptr);
    const bool restart = std::exchange(restart_log, false);
    lock.unlock();
    // Only the writer can begin the log anew while transactions keep coming. Not being able to is no harm.
    // Nor does it wait for a reader.
    if (restart) {
      sqlite3_busy_timeout(database.get(), 0);
      static_cast<void>(sqlite::execute(database.get(), "PRAGMA wal_checkpoint(RESTART)"));
      sqlite3_busy_timeout(database.get(), database_busy_ms);
    }
    const Status status = writer->write(*work);
    tell(status);
    lock.lock();
    if (!status) continue;
    ++written;
    urgent = urgent || work->urgent;
    changed.notify_all();
  }
}

void Store::Impl::sync_loop() {
  TimePoint last = SteadyClock::now();
  std::unique_lock lock(mutex);
  for (;;) {
    changed.wait(lock, [this] { return written > synced || stopping; });
    if (written == synced) return;
    changed.wait_until(lock, last + limits::database_sync_interval, [this] { return urgent || stopping; });
    const std::uint64_t writes = written;
    const auto tell = synced_call;
    urgent = false;
    lock.unlock();
    const Status status = sync();
    last = SteadyClock::now();
    if (tell) tell(writes, status);
    shrink_log();
    lock.lock();
    synced = writes;
  }
}

Status Store::Impl::sync() {
  while (::fdatasync(log.get()) != 0) {
    if (errno == EINTR) continue;
    return Error(Errc::io_error,
                 std::string("the write-ahead log cannot be synced: ") + std::strerror(errno));
  }
  return {};
}

/// Copies a long log into the database while transactions go on; its end is left to the writer.
void Store::Impl::shrink_log() {
  {
    const std::lock_guard lock(mutex);
    if (restart_log || std::int64_t{log_pages} * limits::database_page_bytes < limits::database_log_bytes)
      return;
  }
  int pages = 0;
  int copied = 0;
  const int code =
      sqlite3_wal_checkpoint_v2(checkpointer.get(), nullptr, SQLITE_CHECKPOINT_PASSIVE, &pages, &copied);
  const std::lock_guard lock(mutex);
  restart_log = code == SQLITE_OK && pages == copied;  // Otherwise somebody still reads what is there.
}

}  // namespace sublet::manager
