#include "benchmarks/harvest/hooked_site.hpp"

#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <thread>

#include "benchmarks/frame/side.hpp"
#include "runtime/control/api.hpp"

namespace sublet::bench::harvest {
namespace {

using namespace std::chrono_literals;

constexpr auto ready_max = 60s;
constexpr auto poll_interval = 1ms;
constexpr auto ask_max = 10s;
constexpr unsigned memory_mib = 4000;
constexpr unsigned ms_a_second = 1000;
constexpr unsigned handback_beyond_grace_s = 5;
constexpr const char* guard_script = R"(
trap '' INT TERM HUP
read -r _
here=$1
shift
for node; do SLURMD_NODENAME=$node "$here/hooks/prolog"; done
rm -rf "$here"
)";

/// Below the build or the prefix that this program is of.
std::filesystem::path hooks_directory() {
  const std::filesystem::path found = program_directory().parent_path() / "share" / "sublet" / "slurm";
  if (std::filesystem::exists(found / "install")) return found;
  throw std::runtime_error(found.string() + " has no hooks: build or install them first");
}

std::vector<char*> words_of(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

/// Runs it as slurmd runs a hook, with no environment but this. Its exit status.
int run_program(std::vector<std::string> words, std::vector<std::string> environment) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, words.front().c_str(), &actions, nullptr, words_of(words).data(),
                                words_of(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error(words.front() + ": " + std::strerror(error));
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

/// Cores of this machine, as the list that the knob CORE_LIST takes.
std::string core_list(unsigned cores) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  sched_getaffinity(0, sizeof allowed, &allowed);
  std::vector<std::size_t> machine;
  for (std::size_t core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &allowed)) machine.push_back(core);
  }
  std::string list;
  for (unsigned place = 0; place < cores; ++place)
    list += (place == 0 ? "" : ",") + std::to_string(machine.at(place % machine.size()));
  return list;
}

}  // namespace

HookedSite::HookedSite(unsigned nodes, unsigned cores, unsigned grace_ms)
    : manager_(directory_.path()), cores_(cores), http_(control::HttpClient::create(manager_.url()).value()) {
  for (unsigned number = 1; number <= nodes; ++number) nodes_.push_back("n" + std::to_string(number));
  install(cores, grace_ms);
  start_guard();
}

void HookedSite::install(unsigned cores, unsigned grace_ms) const {
  const std::string base = directory_.path();
  std::vector<std::string> words{hooks_directory() / "install", "--dir", base + "/hooks"};
  const std::array<std::pair<std::string, std::string>, 11> knobs{{
      {"MANAGER", manager_.url()},
      {"AGENT", program_directory() / "sublet-agent"},
      {"AGENT_USER", ""},
      {"CORES", std::to_string(cores)},
      {"CORE_LIST", core_list(cores)},
      {"MEMORY_MIB", std::to_string(memory_mib)},
      {"GRACE_MS", std::to_string(grace_ms)},
      {"HANDBACK_S", std::to_string(grace_ms / ms_a_second + handback_beyond_grace_s)},
      {"RUN_DIR", base + "/run"},
      {"STATE_DIR", base + "/agents"},
      {"LOG_DIR", base + "/log"},
  }};
  for (const auto& [knob, value] : knobs) {
    words.emplace_back("--set");
    words.push_back(knob + "=" + value);
  }
  if (run_program(words, {"PATH=/usr/bin:/bin"}) != 0)
    throw std::runtime_error("the hooks could not be installed in " + base);
}

/// The agents are nobody's children: a process waits for our end, whatever ends us, and takes the nodes back.
void HookedSite::start_guard() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0)
    throw std::runtime_error(std::string("pipe: ") + std::strerror(errno));
  const FileDescriptor theirs(ends[0]);
  leash_ = FileDescriptor(ends[1]);
  std::vector<std::string> words{"/bin/bash", "-c", guard_script, "guard", directory_.path()};
  for (const std::string& node : nodes_) words.push_back(node);
  std::vector<std::string> environment{"PATH=/usr/bin:/bin", "SLURM_JOB_ID=end",
                                       "SLURM_JOB_CPUS_PER_NODE=" + std::to_string(cores_)};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDIN_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
  const int error = posix_spawn(&guard_, words.front().c_str(), &actions, &attributes, words_of(words).data(),
                                words_of(environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error(words.front() + ": " + std::strerror(error));
}

HookedSite::~HookedSite() {
  leash_ = FileDescriptor();
  if (guard_ > 0) waitpid(guard_, nullptr, 0);
}

std::chrono::nanoseconds HookedSite::run(Hook hook, const std::string& node) const {
  const char* const name = hook == Hook::prolog ? "prolog" : "epilog";
  const std::string program = directory_.path() / "hooks" / name;
  const auto begun = Clock::now();
  const int status =
      run_program({program}, {"SLURMD_NODENAME=" + node, "SLURM_JOB_ID=1", "SLURM_JOB_PARTITION=main",
                              "SLURM_JOB_CPUS_PER_NODE=" + std::to_string(cores_)});
  const auto took = Clock::now() - begun;
  if (status != 0) throw std::runtime_error(std::string("the ") + name + " of " + node + " failed");
  return took;
}

std::chrono::nanoseconds HookedSite::run_nothing() const {
  const auto begun = Clock::now();
  if (run_program({"/bin/bash", "-c", "exit 0"}, {}) != 0) throw std::runtime_error("bash does not run");
  return Clock::now() - begun;
}

std::map<std::string, std::pair<unsigned, unsigned>> HookedSite::workers() {
  const auto answer = control::body_of(http_->request("GET", "/v1/nodes", "", ask_max)).value();
  std::map<std::string, std::pair<unsigned, unsigned>> found;
  const std::vector<api::NodeInfo> nodes = api::from_json<api::Nodes>(answer).value().nodes;
  for (const api::NodeInfo& node : nodes) {
    if (node.state == "up") found[node.name] = {node.workers_ready, node.workers_serving};
  }
  return found;
}

void HookedSite::wait_for(const std::string& node, unsigned ready_min, unsigned leased_min) {
  const auto end = Clock::now() + ready_max;
  while (Clock::now() < end) {
    const auto [ready, leased] = workers()[node];
    if (ready >= ready_min && leased >= leased_min) return;
    std::this_thread::sleep_for(poll_interval);
  }
  throw std::runtime_error("the node " + node + " did not get its workers in time\n" + logs());
}

std::string HookedSite::logs() const {
  std::string all;
  for (const char* name : {"manager.log", "log/hooks.log", "log/agent.log"})
    all += std::string("--- ") + name + "\n" + tail_of(directory_.path() / name);
  return all;
}

}  // namespace sublet::bench::harvest
