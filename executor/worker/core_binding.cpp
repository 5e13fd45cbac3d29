#include "executor/worker/core_binding.hpp"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

namespace {

std::atomic<bool> stays{false};

}  // namespace

/// In place of the C library's, for every library that this program loads: it is exported by the linker's
/// --export-dynamic-symbol.
extern "C" [[gnu::visibility("default")]] int sched_setaffinity(pid_t pid, std::size_t bytes,
                                                                const cpu_set_t* cores) noexcept {
  if (stays.load(std::memory_order_relaxed)) return 0;
  return static_cast<int>(::syscall(SYS_sched_setaffinity, pid, bytes, cores));
}

namespace sublet::worker {

CoreBinding::CoreBinding() noexcept {
  stays = true;
}

CoreBinding::~CoreBinding() {
  stays = false;
}

}  // namespace sublet::worker
