#include "benchmarks/local_site.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>

namespace sublet::bench {
namespace {

using namespace std::chrono_literals;

constexpr auto start_max = 20s;
constexpr auto end_max = 10s;
constexpr auto poll_interval = 10ms;

[[noreturn]] void become(std::vector<char*>& words, const std::filesystem::path& log, pid_t parent) {
  const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (out < 0 || in < 0 || getppid() != parent) _exit(127);
  dup2(in, STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(out, STDERR_FILENO);
  execv(words[0], words.data());
  _exit(127);
}

std::string read_port(const std::filesystem::path& file, Process& manager) {
  const auto end = std::chrono::steady_clock::now() + start_max;
  while (manager.alive() && std::chrono::steady_clock::now() < end) {
    std::ifstream stream(file);
    std::string port;
    if (std::getline(stream, port) && !port.empty()) return port;
    std::this_thread::sleep_for(poll_interval);
  }
  throw std::runtime_error("the manager did not start");
}

}  // namespace

Process::Process(const std::vector<std::string>& arguments, const std::filesystem::path& log) {
  if (access(arguments[0].c_str(), X_OK) != 0)
    throw std::runtime_error(arguments[0] + ": " + std::strerror(errno) + ": build or install it first");
  std::vector<char*> words;
  words.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) throw std::runtime_error(std::string("fork: ") + std::strerror(errno));
  if (pid_ == 0) become(words, log, parent);
}

bool Process::alive() {
  if (pid_ > 0 && waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = -1;
  return pid_ > 0;
}

Process::~Process() {
  if (!alive()) return;
  kill(pid_, SIGTERM);
  const auto end = std::chrono::steady_clock::now() + end_max;
  while (alive() && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(poll_interval);
  if (!alive()) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "sublet-bench-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error(pattern + ": " + std::strerror(errno));
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

LocalSite::LocalSite(unsigned workers)
    : manager_({program_directory() / "sublet-manager", "--port", "0", "--port-file",
                directory_.path() / "port", "--state-dir", directory_.path() / "manager"},
               directory_.path() / "manager.log"),
      url_("http://127.0.0.1:" + read_port(directory_.path() / "port", manager_)),
      agent_({program_directory() / "sublet-agent", "--manager", url_, "--state-dir",
              directory_.path() / "agent", "--cores", std::to_string(workers), "--warm",
              std::to_string(workers), "--oversubscribe"},
             directory_.path() / "agent.log") {}

std::string LocalSite::logs() const {
  std::string all;
  for (const char* name : {"manager.log", "agent.log"}) {
    std::ifstream stream(directory_.path() / name);
    const std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
    all += std::string("--- ") + name + "\n" +
           text.substr(text.size() - std::min<std::size_t>(text.size(), 4000));
  }
  return all;
}

std::filesystem::path program_directory() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path();
}

}  // namespace sublet::bench
