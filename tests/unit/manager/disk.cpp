#include "tests/unit/manager/disk.hpp"

#include <sqlite3.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <mutex>

#include "runtime/base/assert.hpp"

namespace {

using sublet::test::Disk;

std::mutex mutex;
std::condition_variable changed;
Disk::Trouble trouble = Disk::Trouble::none;
int stuck = 0;  // Threads.

/// Waits while the disk is `sticky`; then what to fail with, 0: nothing.
int meet(Disk::Trouble sticky, Disk::Trouble failing, int error) {
  std::unique_lock lock(mutex);
  if (trouble == sticky) {
    ++stuck;
    changed.notify_all();
    changed.wait(lock, [&] { return trouble != sticky; });
    --stuck;
  }
  return trouble == failing ? error : 0;
}

ssize_t write_at(int descriptor, const void* bytes, std::size_t count, off_t at) {
  if (const int error = meet(Disk::Trouble::stuck_writes, Disk::Trouble::full, ENOSPC); error != 0) {
    errno = error;
    return -1;
  }
  return ::pwrite(descriptor, bytes, count, at);
}

void rule(sqlite3_syscall_ptr write) {
  sqlite3_vfs* const system = sqlite3_vfs_find(nullptr);
  // SQLite is built to use the one or the other.
  const int first = system->xSetSystemCall(system, "pwrite", write);
  const int second = system->xSetSystemCall(system, "pwrite64", write);
  SUBLET_ASSERT(first == SQLITE_OK || second == SQLITE_OK);
}

}  // namespace

/// In the place of the C library's: the store syncs its log itself.
extern "C" int fdatasync(int descriptor) {
  if (const int error = meet(Disk::Trouble::stuck_syncs, Disk::Trouble::failed_syncs, EIO); error != 0) {
    errno = error;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_fdatasync, descriptor));
}

namespace sublet::test {

Disk::Disk() {
  rule(reinterpret_cast<sqlite3_syscall_ptr>(&write_at));
}

Disk::~Disk() {
  meets(Trouble::none);
  rule(nullptr);
}

void Disk::meets(Trouble what) {
  const std::lock_guard lock(mutex);
  trouble = what;
  changed.notify_all();
}

bool Disk::wait_stuck(std::chrono::milliseconds most) {
  std::unique_lock lock(mutex);
  return changed.wait_for(lock, most, [] { return stuck > 0; });
}

}  // namespace sublet::test
