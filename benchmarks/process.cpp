#include "benchmarks/process.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>
#include <utility>

namespace sublet::bench {
namespace {

using namespace std::chrono_literals;

constexpr auto end_max = 10s;
constexpr auto poll_interval = 1ms;
constexpr std::size_t tail_bytes = 4000;

[[noreturn]] void become(std::vector<char*>& words, const std::filesystem::path& log, pid_t parent,
                         const std::vector<int>& cores) {
  const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (out < 0 || in < 0 || getppid() != parent) _exit(127);
  if (!cores.empty()) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const int core : cores) CPU_SET(static_cast<std::size_t>(core), &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) _exit(127);
  }
  dup2(in, STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(out, STDERR_FILENO);
  execv(words[0], words.data());
  _exit(127);
}

}  // namespace

Process::Process(const std::vector<std::string>& arguments, const std::filesystem::path& log,
                 const std::vector<int>& cores) {
  if (access(arguments[0].c_str(), X_OK) != 0)
    throw std::runtime_error(arguments[0] + ": " + std::strerror(errno) + ": build or install it first");
  std::vector<char*> words;
  words.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) throw std::runtime_error(std::string("fork: ") + std::strerror(errno));
  if (pid_ == 0) become(words, log, parent, cores);
}

Process::Process(Process&& other) noexcept : pid_(std::exchange(other.pid_, -1)), status_(other.status_) {}

Process& Process::operator=(Process&& other) noexcept {
  if (this == &other) return *this;
  end();
  pid_ = std::exchange(other.pid_, -1);
  status_ = other.status_;
  return *this;
}

bool Process::alive() {
  if (pid_ > 0 && waitpid(pid_, &status_, WNOHANG) == pid_) pid_ = -1;
  return pid_ > 0;
}

void Process::signal(int number) {
  if (alive()) ::kill(pid_, number);
}

void Process::kill() {
  if (!alive()) return;
  ::kill(pid_, SIGKILL);
  waitpid(std::exchange(pid_, -1), &status_, 0);
}

bool Process::wait(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (alive()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(poll_interval);
  }
  return true;
}

void Process::end() {
  signal(SIGTERM);
  if (!wait(end_max)) kill();
}

Process::~Process() {
  end();
}

TemporaryDirectory::TemporaryDirectory(const std::filesystem::path& below) {
  std::string pattern = (below / "sublet-bench-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error(pattern + ": " + std::strerror(errno));
  path_ = pattern;
}

const std::filesystem::path& TemporaryDirectory::keep() noexcept {
  kept_ = true;
  return path_;
}

TemporaryDirectory::~TemporaryDirectory() {
  if (kept_) return;
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::filesystem::path program_directory() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path();
}

std::filesystem::path function_module(const std::string& name) {
  for (const char* const place : {"../lib/sublet", "../lib"}) {
    if (auto path = program_directory() / place / (name + ".so"); std::filesystem::exists(path)) return path;
  }
  throw std::runtime_error(name + ".so is not where this program looks for it: build or install it first");
}

std::string tail_of(const std::filesystem::path& file) {
  std::ifstream stream(file);
  const std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  return text.substr(text.size() - std::min(text.size(), tail_bytes));
}

std::chrono::nanoseconds cpu_time(pid_t process) {
  clockid_t clock = 0;
  timespec used{};
  if (clock_getcpuclockid(process, &clock) != 0 || clock_gettime(clock, &used) != 0) return 0ns;
  return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
}

MemoryUse memory_use(pid_t process) {
  std::ifstream stream("/proc/" + std::to_string(process) + "/smaps_rollup");
  MemoryUse use;
  std::string key;
  for (std::string line; std::getline(stream, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string_view name(line.data(), colon);
    const std::uint64_t kib = std::strtoull(line.c_str() + colon + 1, nullptr, 10);
    if (name == "Rss") use.rss_bytes = kib * 1024;
    if (name == "Pss") use.pss_bytes = kib * 1024;
  }
  return use;
}

std::string file_system_of(const std::filesystem::path& path) {
  struct statfs about {};
  if (statfs(path.c_str(), &about) != 0) return "an unknown file system";
  switch (static_cast<unsigned long>(about.f_type)) {
    case EXT4_SUPER_MAGIC:
      return "ext4";
    case XFS_SUPER_MAGIC:
      return "xfs";
    case BTRFS_SUPER_MAGIC:
      return "btrfs";
    case OVERLAYFS_SUPER_MAGIC:
      return "overlayfs";
    case TMPFS_MAGIC:
      return "tmpfs";
    case NFS_SUPER_MAGIC:
      return "nfs";
    default:
      return "file system " + std::to_string(about.f_type);
  }
}

}  // namespace sublet::bench
