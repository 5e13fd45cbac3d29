#include "benchmarks/chaos/processes.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

namespace sublet::bench::chaos {
namespace {

constexpr const char* mark_name = "SUBLET_CHAOS_RUN";

std::string read_all(const std::filesystem::path& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

std::string mark() {
  return std::string(mark_name) + "=" + std::to_string(getpid());
}

}  // namespace

void mark_environment() {
  setenv(mark_name, std::to_string(getpid()).c_str(), 1);
}

std::vector<Marked> marked_processes() {
  std::vector<Marked> found;
  std::error_code gone;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", gone)) {
    const pid_t pid = std::atoi(entry.path().filename().c_str());
    if (pid <= 0 || pid == getpid()) continue;
    const std::string environment = '\0' + read_all(entry.path() / "environ");
    if (environment.find('\0' + mark() + '\0') == std::string::npos) continue;
    std::string name = read_all(entry.path() / "comm");
    while (!name.empty() && name.back() == '\n') name.pop_back();
    found.push_back({pid, name});
  }
  return found;
}

Handle::Handle(pid_t pid) : descriptor_(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))) {}

void Handle::signal(int number) const {
  if (descriptor_.valid()) syscall(SYS_pidfd_send_signal, descriptor_.get(), number, nullptr, 0);
}

std::size_t open_files(pid_t pid) {
  std::error_code gone;
  const std::filesystem::directory_iterator files("/proc/" + std::to_string(pid) + "/fd", gone);
  return gone ? 0 : static_cast<std::size_t>(std::distance(begin(files), end(files)));
}

std::string list_open_files(pid_t pid) {
  std::ostringstream text;
  std::error_code gone;
  for (const auto& file : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd", gone)) {
    text << "    " << file.path().filename().string() << " -> "
         << std::filesystem::read_symlink(file.path(), gone).string() << "\n";
  }
  return text.str();
}

}  // namespace sublet::bench::chaos
