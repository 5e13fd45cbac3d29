#include "executor/agent/worker_process.hpp"

#include <dirent.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>

namespace sublet::agent {
namespace {

struct CloseDirectory {
  void operator()(DIR* directory) const noexcept { ::closedir(directory); }
};

Error refused(const char* call) {
  return {Errc::io_error,
          std::string(call) + ": " + std::strerror(errno) + "; may this agent control its workers?"};
}

cpu_set_t set_of(const std::vector<int>& cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) CPU_SET(core, &set);
  return set;
}

/// Calls `what` for each thread of the process; false when it has gone.
bool for_tasks(pid_t pid, const std::function<void(pid_t)>& what) {
  const std::unique_ptr<DIR, CloseDirectory> tasks(
      ::opendir(("/proc/" + std::to_string(pid) + "/task").c_str()));
  if (!tasks) return false;
  while (const dirent* entry = ::readdir(tasks.get())) {
    if (const auto task = static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10)); task > 0) what(task);
  }
  return true;
}

}  // namespace

Status bind_to_cores(pid_t pid, const std::vector<int>& cores) {
  const cpu_set_t set = set_of(cores);
  int error = 0;
  const bool listed = for_tasks(pid, [&](pid_t task) {
    if (::sched_setaffinity(task, sizeof(set), &set) != 0 && errno != ESRCH) error = errno;
  });
  if (!listed) return refused("opendir of the worker's tasks");
  errno = error;
  if (error != 0) return refused("sched_setaffinity");
  return {};
}

bool is_bound_to(pid_t pid, const std::vector<int>& cores) {
  const cpu_set_t wanted = set_of(cores);
  bool bound = true;
  for_tasks(pid, [&](pid_t task) {
    cpu_set_t set;
    bound = bound && (::sched_getaffinity(task, sizeof(set), &set) != 0 || CPU_EQUAL(&set, &wanted) != 0);
  });
  return bound;
}

Status limit_memory(pid_t pid, std::uint64_t bytes) {
  std::ifstream statm("/proc/" + std::to_string(pid) + "/statm");
  std::uint64_t fields[6] = {};  // size resident shared text lib data, in pages
  for (std::uint64_t& field : fields) statm >> field;
  if (!statm) return refused("read of the worker's statm");
  const std::uint64_t limit = fields[5] * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) + bytes;
  const rlimit data{.rlim_cur = limit, .rlim_max = limit};
  if (::prlimit(pid, RLIMIT_DATA, &data, nullptr) != 0) return refused("prlimit");
  return {};
}

}  // namespace sublet::agent
