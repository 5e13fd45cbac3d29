#include "benchmarks/chaos/site.hpp"

#include <algorithm>
#include <csignal>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace sublet::bench::chaos {
namespace {

using namespace std::chrono_literals;

constexpr auto start_max = 20s;
constexpr auto poll_interval = 2ms;
constexpr auto leave_max = 20s;  // An agent drains first.
constexpr int cores_each = 3;    // Of an agent, whatever the machine has.

std::string read_port(const std::filesystem::path& file) {
  std::ifstream stream(file);
  std::string port;
  std::getline(stream, port);
  return port;
}

}  // namespace

Site::Site(const SiteShape& shape, std::filesystem::path directory)
    : shape_(shape), directory_(std::move(directory)) {
  manager_.name = "manager";
  for (std::uint32_t i = 0; i < shape_.agents; ++i) {
    agents_.emplace_back().name = "agent" + std::to_string(i);
  }
  for (std::uint32_t i = 0; i < shape_.clients; ++i) {
    clients_.emplace_back().name = "client" + std::to_string(i);
  }
}

void Site::note(const std::string& text) {
  const double seconds = std::chrono::duration<double>(SteadyClock::now() - begun_).count();
  std::ostringstream line;
  line.precision(3);
  line << std::fixed << seconds << " s " << text;
  history_.push_back(line.str());
}

void Site::later(std::chrono::milliseconds time, std::function<void()> task) {
  tasks_.push({SteadyClock::now() + time, std::move(task)});
}

void Site::start_manager_and_agents() {
  start_manager();
  const auto end = SteadyClock::now() + start_max;
  while (port_ == "0") {
    if (!manager_.process.alive() || SteadyClock::now() > end)
      throw std::runtime_error("the manager did not start:\n" + tail_of(directory_ / "manager.log"));
    if (const std::string port = read_port(directory_ / "port"); !port.empty()) port_ = port;
    std::this_thread::sleep_for(poll_interval);
  }
  for (Member& agent : agents_) start_agent(agent);
}

void Site::start_clients() {
  for (Member& client : clients_) start_client(client);
}

void Site::start(Member& member) {
  if (&member == &manager_) return start_manager();
  if (member.name.starts_with("agent")) return start_agent(member);
  start_client(member);
}

void Site::start_manager() {
  manager_.process = Process({program_directory() / "sublet-manager", "--port", port_, "--port-file",
                              directory_ / "port", "--state-dir", directory_ / "manager"},
                             directory_ / "manager.log");
  manager_.wanted = true;
}

void Site::start_agent(Member& member) {
  const std::string cores = std::to_string(cores_each);
  member.process = Process({program_directory() / "sublet-agent", "--manager", url(), "--name", member.name,
                            "--state-dir", directory_ / member.name, "--cores", cores, "--warm", "2",
                            "--warm-loaded", "2", "--region", "4", "--oversubscribe", "--drain-ms", "1000"},
                           directory_ / (member.name + ".log"));
  member.wanted = true;
}

void Site::start_client(Member& member) {
  member.run = runs_.size();
  const std::filesystem::path ledger = directory_ / ("ledger" + std::to_string(member.run));
  runs_.push_back({Ledger(ledger, true)});
  member.process =
      Process({program_directory() / "sublet-bench", "chaos-client", "--manager", url(), "--ledger", ledger,
               "--tenant", member.run % 2 == 0 ? "even" : "odd", "--transport",
               (member.run / 2) % 2 == 0 ? "shm" : "tcp", "--seed", std::to_string(shape_.seed + member.run)},
              directory_ / (member.name + ".log"));
  member.wanted = true;
}

std::vector<Site::Member*> Site::members() {
  std::vector<Member*> all{&manager_};
  for (Member& agent : agents_) all.push_back(&agent);
  for (Member& client : clients_) all.push_back(&client);
  return all;
}

Site::Member& Site::member_of(const Act& act) {
  if (act.role == Role::manager) return manager_;
  std::vector<Member>& those = act.role == Role::agent ? agents_ : clients_;
  return those[act.which % those.size()];
}

void Site::perform(const Act& act) {
  if (act.role == Role::worker || act.role == Role::worker_template) return perform_on_worker(act);
  perform_on(member_of(act), act);
}

void Site::perform_on(Member& member, const Act& act) {
  if (!member.wanted || member.leave_by) return note(text_of(act) + ": " + member.name + " is away");
  note(text_of(act) + ": " + member.name + " (pid " + std::to_string(member.process.pid()) + ")");
  if (act.deed == Deed::pause) {
    if (member.stopped) return;
    member.stopped = true;
    member.process.signal(SIGSTOP);
    return later(act.time, [this, &member, pid = member.process.pid()] {
      if (member.process.pid() == pid) go_on(member);
    });
  }
  if (act.deed == Deed::end) {
    go_on(member);
    member.leave_by = SteadyClock::now() + leave_max;
    return member.process.signal(SIGTERM);
  }
  if (&member != &manager_ && member.name.starts_with("client")) runs_[member.run].killed = true;
  member.process.kill();
  member.wanted = false;
  member.stopped = false;
  later(act.time, [this, &member] {
    if (!member.wanted) start(member);
  });
}

void Site::perform_on_worker(const Act& act) {
  const char* const name = act.role == Role::worker ? "sublet-worker" : "sublet-template";
  std::vector<Marked> those = marked_processes();
  std::erase_if(those, [&](const Marked& one) { return one.name != name; });
  if (those.empty()) return note(text_of(act) + ": there is none");
  std::sort(those.begin(), those.end(), [](const Marked& a, const Marked& b) { return a.pid < b.pid; });
  const pid_t pid = those[act.which % those.size()].pid;
  note(text_of(act) + ": pid " + std::to_string(pid));
  auto handle = std::make_shared<Handle>(pid);
  if (act.deed != Deed::pause) return handle->signal(act.deed == Deed::kill ? SIGKILL : SIGTERM);
  handle->signal(SIGSTOP);
  later(act.time, [handle] { handle->signal(SIGCONT); });
}

void Site::go_on(Member& member) {
  if (!member.stopped) return;
  member.stopped = false;
  member.process.signal(SIGCONT);
  note(member.name + " goes on");
}

void Site::check(Member& member) {
  if (!member.wanted) return;
  if (member.process.alive()) {
    if (!member.leave_by || SteadyClock::now() < *member.leave_by) return;
    faults_.push_back(member.name + " does not end on SIGTERM");
    note(faults_.back());
    member.process.kill();
  }
  const int status = member.process.status();
  const bool client = member.name.starts_with("client");
  if (!member.leave_by && !(client && WIFEXITED(status) && WEXITSTATUS(status) == 0)) {
    faults_.push_back(member.name + " ended by itself with status " + std::to_string(status));
    note(faults_.back());
    if (client) runs_[member.run].killed = true;
  } else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    faults_.push_back(member.name + " ended on SIGTERM with status " + std::to_string(status));
    note(faults_.back());
  }
  member.leave_by.reset();
  member.stopped = false;
  start(member);
}

void Site::tick() {
  while (!tasks_.empty() && tasks_.top().time <= SteadyClock::now()) {
    const std::function<void()> task = tasks_.top().run;
    tasks_.pop();
    task();
  }
  for (Member* member : members()) check(*member);
}

bool Site::whole() {
  const std::vector<Member*> all = members();
  return std::all_of(all.begin(), all.end(), [](Member* member) {
    return member->wanted && !member->stopped && !member->leave_by && member->process.alive();
  });
}

void Site::mend() {
  note("no more chaos");
  while (!tasks_.empty()) {
    const std::function<void()> task = tasks_.top().run;
    tasks_.pop();
    task();
  }
  for (Member* member : members()) go_on(*member);
}

void Site::finish_clients(std::chrono::milliseconds time) {
  for (Member& client : clients_) {
    client.wanted = false;
    client.process.signal(SIGTERM);
  }
  const TimePoint end = SteadyClock::now() + time;
  for (Member& client : clients_) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - SteadyClock::now());
    if (client.process.wait(std::max(left, 0ms))) continue;
    faults_.push_back(client.name + " does not finish: a call or a request of it hangs");
    runs_[client.run].killed = true;
    client.process.kill();
  }
}

bool Site::stop_all(std::chrono::milliseconds time) {
  bool all = true;
  for (Member& agent : agents_) {
    agent.wanted = false;
    agent.process.signal(SIGTERM);
  }
  for (Member& agent : agents_) all = agent.process.wait(time) && all;
  manager_.wanted = false;
  manager_.process.signal(SIGTERM);
  return manager_.process.wait(time) && all;
}

std::size_t Site::agent_files() {
  std::size_t most = 0;
  for (Member& agent : agents_) most = std::max(most, open_files(agent.process.pid()));
  return most;
}

std::string Site::list_files() {
  std::string text;
  for (Member* member : members()) {
    if (!member->process.alive()) continue;
    text += "  " + member->name + ":\n" + list_open_files(member->process.pid());
  }
  return text;
}

std::string Site::logs() const {
  std::string text = "--- manager.log\n" + tail_of(directory_ / "manager.log");
  for (const Member& agent : agents_)
    text += "--- " + agent.name + "\n" + tail_of(directory_ / (agent.name + ".log"));
  return text;
}

}  // namespace sublet::bench::chaos
