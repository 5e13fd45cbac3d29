#include "executor/agent/worker_process.hpp"

#include <dirent.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
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

}  // namespace

Status bind_to_cores(pid_t pid, const std::vector<int>& cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) CPU_SET(core, &set);
  const std::unique_ptr<DIR, CloseDirectory> tasks(
      ::opendir(("/proc/" + std::to_string(pid) + "/task").c_str()));
  if (!tasks) return refused("opendir of the worker's tasks");
  while (const dirent* entry = ::readdir(tasks.get())) {
    const pid_t task = static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10));
    if (task <= 0) continue;
    if (::sched_setaffinity(task, sizeof(set), &set) != 0 && errno != ESRCH)
      return refused("sched_setaffinity");
  }
  return {};
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
