#include "executor/agent/processes.hpp"

#include <dirent.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <string>

namespace sublet::agent {
namespace {

struct CloseDirectory {
  void operator()(DIR* directory) const noexcept { ::closedir(directory); }
};

/// Its parent; 0 when it has gone.
pid_t parent_of(pid_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(stat, line);
  // The name in parentheses may hold anything: "pid (name) state parent".
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos || name_end + 4 > line.size()) return 0;
  return static_cast<pid_t>(std::strtol(line.c_str() + name_end + 4, nullptr, 10));
}

}  // namespace

std::vector<pid_t> family(pid_t of, const std::function<bool(pid_t)>& left_out) {
  std::multimap<pid_t, pid_t> children;
  const std::unique_ptr<DIR, CloseDirectory> all(::opendir("/proc"));
  if (all) {
    while (const dirent* entry = ::readdir(all.get())) {
      const auto pid = static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10));
      if (pid > 0) children.emplace(parent_of(pid), pid);
    }
  }
  std::vector<pid_t> found{of};
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto [first, last] = children.equal_range(found[i]);
    for (auto child = first; child != last; ++child) {
      if (!left_out(child->second)) found.push_back(child->second);
    }
  }
  return found;
}

}  // namespace sublet::agent
