#include "tests/integration/site_fixture.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <thread>
#include <utility>

#include "client/manager_client.hpp"
#include "runtime/control/api.hpp"

namespace sublet::test {

namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr auto poll_pause = 5ms;

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  std::getline(file, text);
  return text;
}

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  std::error_code error;
  for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(parent) + "/task", error)) {
    std::ifstream file(task.path() / "children");
    for (pid_t child = 0; file >> child;) children.push_back(child);
  }
  return children;
}

}  // namespace

// --- Process --------------------------------------------------------------------------------------

Process::Process(std::vector<std::string> arguments, const std::string& log_file) {
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  const int log = ::open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
    ::dup2(log, STDOUT_FILENO);
    ::dup2(log, STDERR_FILENO);
    ::execv(pointers[0], pointers.data());
    ::_exit(127);
  }
  ::close(log);
  if (pid_ < 0) throw std::runtime_error("fork failed");
}

Process::Process(Process&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
Process& Process::operator=(Process&& other) noexcept {
  std::swap(pid_, other.pid_);
  return *this;
}
Process::~Process() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Process::signal(int number) const {
  if (pid_ > 0) ::kill(pid_, number);
}

int Process::wait(std::chrono::milliseconds wait_max) {
  if (pid_ <= 0) return -1;
  int status = 0;
  const bool ended = eventually([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; }, wait_max);
  if (!ended) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  pid_ = -1;
  if (!ended) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool eventually(const std::function<bool()>& done, std::chrono::milliseconds wait_max) {
  const TimePoint end = SteadyClock::now() + wait_max;
  while (!done()) {
    if (SteadyClock::now() >= end) return false;
    std::this_thread::sleep_for(poll_pause);
  }
  return true;
}

// --- SiteFixture ----------------------------------------------------------------------------------

SiteFixture::SiteFixture() {
  std::string pattern = (fs::temp_directory_path() / "sublet-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  directory_ = pattern;
  agents_.reserve(16);  // References stay valid.
  start_manager("0");
}

SiteFixture::~SiteFixture() {
  for (Process& agent : agents_) agent.signal(SIGTERM);
  for (Process& agent : agents_) {
    const bool running = agent.pid() > 0;
    if (running && agent.wait() == -1) {
      std::cerr << "an agent did not end; its log is in " << directory_ << '\n';
      std::abort();
    }
  }
  manager_.signal(SIGTERM);
  manager_.wait();
  if (std::getenv("SUBLET_KEEP_TEST_LOGS") != nullptr) return;
  std::error_code error;
  fs::remove_all(directory_, error);
}

void SiteFixture::start_manager(const std::string& port) {
  const std::string port_file = directory_ + "/port";
  fs::remove(port_file);
  manager_ = Process({program("sublet-manager"), "--port", port, "--port-file", port_file, "--state-dir",
                      directory_ + "/manager"},
                     directory_ + "/manager.log");
  if (!eventually([&] { return !text_of(port_file).empty(); })) {
    throw std::runtime_error("the manager did not start");
  }
  port_ = text_of(port_file);
  url_ = "http://127.0.0.1:" + port_;
}

void SiteFixture::restart_manager() {
  start_manager(port_);
}

Process& SiteFixture::start_agent(const std::string& name, unsigned cores, std::vector<std::string> options) {
  std::vector<std::string> arguments{program("sublet-agent"),
                                     "--manager",
                                     url_,
                                     "--name",
                                     name,
                                     "--cores",
                                     std::to_string(cores),
                                     "--oversubscribe",
                                     "--state-dir",
                                     directory_ + "/" + name};
  arguments.insert(arguments.end(), options.begin(), options.end());
  if (const char* address = std::getenv("SUBLET_TEST_RDMA_ADDRESS")) {
    arguments.insert(arguments.end(), {"--verbs-address", address, "--allow-public", "--region", "16"});
  }
  agents_.emplace_back(std::move(arguments), directory_ + "/" + name + ".log");
  const auto manager = client::ManagerClient::create(url_).value();
  const bool warm = eventually([&] {
    const api::Nodes all = api::from_json<api::Nodes>(manager->list("nodes", 5s).value()).value();
    for (const api::NodeInfo& node : all.nodes) {
      if (node.name == name && node.workers_ready > 0) return true;
    }
    return false;
  });
  if (!warm) throw std::runtime_error("agent " + name + " has no warm worker");
  return agents_.back();
}

std::vector<pid_t> SiteFixture::workers_of(const Process& agent) const {
  std::vector<pid_t> workers;
  for (const pid_t child : children_of(agent.pid())) {
    if (text_of("/proc/" + std::to_string(child) + "/comm") == "sublet-worker") workers.push_back(child);
  }
  return workers;
}

std::string SiteFixture::program(const std::string& name) {
  return SUBLET_BIN_DIR "/" + name;
}
std::string SiteFixture::probe_function() {
  return SUBLET_PROBE_FUNCTION;
}

}  // namespace sublet::test
