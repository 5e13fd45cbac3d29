#include "executor/agent/agent.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "runtime/base/limits.hpp"
#include "runtime/base/log.hpp"

namespace sublet::agent {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds template_pause{1'000};
constexpr milliseconds idle_end_grace{100};  ///< A worker without a client that is told to end.
constexpr milliseconds end_grace{1'000};     ///< A worker that ends by itself is killed after this.

/// Of what a worker says: what can be told to the manager.
bool is_address(std::string_view text) noexcept {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

enum Source : std::uint64_t {
  source_signals = 0,
  source_template = 1,
  source_link = 2,
  source_orders = 3,
  source_worker = 1ULL << 32U,
  source_asker = 2ULL << 32U
};

void watch(int epoll, int descriptor, std::uint64_t source) {
  epoll_event event{.events = EPOLLIN, .data = {.u64 = source}};
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event);
}

}  // namespace

Agent::Agent(Options options)
    : options_(std::move(options)),
      cores_(options_.cores.size()),
      memory_lent_(options_.lend_memory_bytes),
      usage_(usage_directory(options_.state_dir, options_.manager)),
      link_(options_, usage_) {}

Agent::~Agent() {
  for (auto& [id, worker] : workers_) {
    if (worker.pid > 0) ::kill(worker.pid, SIGKILL);
    ::unlink(worker.shm_path.c_str());
  }
  if (template_pid_ > 0) ::kill(template_pid_, SIGKILL);
}

int Agent::run() {
  if (Status ready = set_up(); !ready) {
    log::error(ready.error().message());
    return 1;
  }
  while (!(leaving_ && workers_.empty())) {
    wait();
    check_times();
    fill_pool();
    if (changed_) publish();
    tell_when_lent();
  }
  end_strays();
  link_.leave(options_.goodbye);
  log::info("drained: this node lends nothing any more");
  return 0;
}

Status Agent::set_up() {
  // Workers are forked by the template and adopted by this process.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  sigset_t mask;
  sigemptyset(&mask);
  for (const int signal : {SIGTERM, SIGINT, SIGCHLD}) sigaddset(&mask, signal);
  ::sigprocmask(SIG_BLOCK, &mask, nullptr);
  signals_.reset(::signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC));
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!signals_.valid() || !epoll_.valid())
    return Error(Errc::io_error, std::string("signalfd: ") + std::strerror(errno));
  watch(epoll_.get(), signals_.get(), source_signals);
  watch(epoll_.get(), link_.descriptor(), source_link);
  if (Status opened = usage_.open(); !opened) return opened;
  if (Status listens = orders_.listen(options_.state_dir); !listens) return listens;
  watch(epoll_.get(), orders_.descriptor(), source_orders);
  cores_.lend(options_.lend_cores);
  lends_by_order_ = cores_.lent_count() < cores_.size() || memory_lent_ < options_.memory_bytes;
  if (lends_by_order_) bind_idle();
  if (Status started = start_template(); !started) return started;
  return link_.start();
}

Status Agent::start_template() {
  auto pair = local::make_socket_pair();
  if (!pair) return pair.error();
  const int theirs = pair->second.get();
  const pid_t pid = ::fork();
  if (pid < 0) return Error(Errc::io_error, std::string("fork: ") + std::strerror(errno));
  if (pid == 0) {
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::fcntl(theirs, F_SETFD, 0);
    std::array<char, 16> number{};
    std::snprintf(number.data(), number.size(), "%d", theirs);
    ::execl(options_.worker_program.c_str(), "sublet-worker", "--template", number.data(), nullptr);
    std::fprintf(stderr, "sublet-agent: cannot run %s: %s\n", options_.worker_program.c_str(),
                 std::strerror(errno));
    ::_exit(127);
  }
  template_pid_ = pid;
  template_socket_ = std::move(pair->first);
  watch(epoll_.get(), template_socket_.get(), source_template);
  return {};
}

void Agent::watch_asker(int descriptor) {
  watch(epoll_.get(), descriptor, source_asker | static_cast<std::uint32_t>(descriptor));
}

void Agent::watch_worker(const WorkerProcess& worker) {
  watch(epoll_.get(), worker.socket.get(), source_worker | worker.id);
}

void Agent::wait() {
  std::optional<TimePoint> next;
  const auto sooner = [&next](const std::optional<TimePoint>& time) {
    if (time && (!next || *time < *next)) next = time;
  };
  sooner(template_again_at_);
  sooner(start_again_at_);
  for (const auto& [id, worker] : workers_) {
    sooner(worker.kill_at);
    sooner(worker.refuse_at);
  }
  int timeout = -1;
  if (next)
    timeout = static_cast<int>(
        std::max<milliseconds::rep>(0, std::chrono::ceil<milliseconds>(*next - SteadyClock::now()).count()));
  std::array<epoll_event, 64> events{};
  const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), timeout);
  for (int i = 0; i < count; ++i) {
    const std::uint64_t source = events[static_cast<std::size_t>(i)].data.u64;
    if (source == source_signals) {
      on_signals();
    } else if (source == source_template) {
      on_template();
    } else if (source == source_link) {
      on_link();
    } else if (source == source_orders) {
      on_asker_comes();
    } else if ((source & source_asker) != 0) {
      on_asker(static_cast<int>(source & UINT32_MAX));
    } else if (const auto found = workers_.find(static_cast<std::uint32_t>(source));
               found != workers_.end()) {
      on_worker_socket(found->second);
    }
  }
}

void Agent::on_signals() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    if (info.ssi_signo == SIGCHLD) continue;
    leaving_ = true;
    start_drain();
  }
  reap();
}

void Agent::reap() {
  int status = 0;
  for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid == template_pid_) {
      log::error("the template process has ended (status " + std::to_string(status) +
                 "); starting another one");
      template_pid_ = -1;
      template_socket_.reset();
      template_again_at_ = SteadyClock::now() + template_pause;
      continue;
    }
    const auto with_pid = [this, pid] {
      return std::find_if(workers_.begin(), workers_.end(),
                          [pid](const auto& entry) { return entry.second.pid == pid; });
    };
    auto found = with_pid();
    if (found == workers_.end()) {
      // It died before the packet that names its process was read.
      for (auto& [id, worker] : workers_) {
        if (worker.pid == -1) on_worker_socket(worker);
      }
      found = with_pid();
    }
    if (found == workers_.end()) continue;
    // What it said last is still in its socket.
    on_worker_socket(found->second);
    on_worker_gone(found->second, status);
    workers_.erase(found);
  }
  retry_attaching();
}

void Agent::on_worker_gone(WorkerProcess& worker, int status) {
  ::unlink(worker.shm_path.c_str());
  std::string reason = "crashed";
  if (worker.ended) {
    reason = local::name(*worker.ended);
  } else if (worker.told) {
    reason = local::name(*worker.told);  // Killed at the end of its grace.
  }
  if (reason == "crashed") {
    log::warning("worker " + std::to_string(worker.id) + " crashed, status " + std::to_string(status));
  }
  if (worker.state == State::starting) {
    ++failed_starts_;
    start_again_at_ = SteadyClock::now() + milliseconds(50) * (1 << std::min(failed_starts_, 8U));
    if (worker.function != 0) std::erase(recent_, worker.function);
  }
  ended_.push_back({.worker = worker.id,
                    .lease = worker.token ? worker.token->lease : 0,
                    .reason = reason,
                    .transport = worker.transport});
  free_share(worker);
  usage_.end(worker.usage);
  changed_ = true;
}

void Agent::on_template() {
  // The template says nothing; readable means that it has ended, and SIGCHLD tells the rest.
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, template_socket_.get(), nullptr);
}

void Agent::on_worker_socket(WorkerProcess& worker) {
  for (;;) {
    const Result<local::Packet> packet = local::receive(worker.socket.get());
    if (packet) {
      on_packet(worker, *packet);
      continue;
    }
    if (packet.error().code() == Errc::closed && worker.socket.valid()) {
      worker.socket.reset();  // epoll forgets it.
      // It has closed what it needs to live: end it if it does not end by itself.
      if (worker.state != State::ending) worker.state = State::ending;
      if (!worker.kill_at) worker.kill_at = SteadyClock::now() + end_grace;
      changed_ = true;
    }
    return;
  }
}

void Agent::on_packet(WorkerProcess& worker, const local::Packet& packet) {
  if (const auto forked = packet.as<local::Forked>(); forked && worker.pid == -1) {
    worker.pid = forked->pid;
  } else if (const auto ready = packet.as<local::Ready>(); ready && worker.state == State::starting) {
    for (const local::Endpoint& endpoint : ready->endpoints) {
      const std::string transport(local::get(endpoint.transport));
      const std::string_view address = local::get(endpoint.address);
      if (options_.listen.contains(transport) && is_address(address)) worker.endpoints[transport] = address;
    }
    if (worker.endpoints.empty()) {
      worker.kill_at = SteadyClock::now();  // Nobody could reach it.
      return;
    }
    worker.state = State::ready;
    worker.kill_at.reset();
    failed_starts_ = 0;
    changed_ = true;
  } else if (const auto attach = packet.as<local::Attach>(); attach && worker.state == State::ready) {
    on_attach(worker, attach->token);
  } else if (const auto serving = packet.as<local::Serving>(); serving && worker.state == State::attaching) {
    const std::string transport(local::get(serving->transport));
    if (worker.endpoints.contains(transport)) worker.transport = transport;
    worker.state = State::serving;
    changed_ = true;
  } else if (const auto ended = packet.as<local::Ended>(); ended && !worker.ended) {
    worker.ended = ended->reason;
    if (ended->reason == local::EndReason::load_failed) {
      log::warning("worker " + std::to_string(worker.id) + ": " + std::string(local::get(ended->text)));
    }
    worker.state = worker.state == State::starting ? State::starting : State::ending;
    worker.kill_at = SteadyClock::now() + end_grace;
    changed_ = true;
  }
}

void Agent::on_link() {
  ManagerLink::Events events = link_.take_events();
  if (events.registered) {
    // Tokens of an earlier registration are void: so are workers that only know its key.
    key_ = events.registered->key;
    for (auto& [id, worker] : workers_) {
      if (worker.state == State::starting || worker.state == State::ready)
        end_worker(worker, local::EndReason::revoked);
    }
    changed_ = true;
  }
  for (ManagerLink::Fetched& fetched : events.fetched) {
    if (fetched.path) functions_[fetched.function] = *fetched.path;
    for (auto& [id, worker] : workers_) {
      if (!fetched.path && worker.state == State::attaching && worker.token->function == fetched.function &&
          worker.refuse_at) {
        answer(worker, fetched.path.error(), {});
      }
    }
  }
  for (const api::Command& command : events.commands) on_command(command);
  retry_attaching();
  if (changed_) publish();  // Before the manager hears that the commands were taken.
  link_.obeyed();
}

void Agent::on_command(const api::Command& command) {
  if (command.kind == "end_lease" || command.kind == "end_worker") {
    const auto reason = command.reason == "released"  ? local::EndReason::released
                        : command.reason == "expired" ? local::EndReason::expired
                                                      : local::EndReason::revoked;
    const bool whole = command.kind == "end_lease";
    if (whole) ended_leases_.add(command.lease);
    for (auto& [id, worker] : workers_) {
      const bool of_lease = worker.token && worker.token->lease == command.lease;
      // One that was granted and never used still opens to its token: it goes as well.
      if (whole ? of_lease : id == command.worker && (of_lease || !worker.token)) end_worker(worker, reason);
    }
  } else if (command.kind == "fetch_function") {
    if (functions_.find(command.function) == functions_.end()) link_.fetch(command.function);
  } else if (command.kind == "drop_function") {
    functions_.erase(command.function);
    link_.forget(command.function);
    std::erase(recent_, command.function);
    for (auto& [id, worker] : workers_) {
      if (worker.function == command.function && worker.state == State::ready)
        end_worker(worker, local::EndReason::revoked);
    }
  } else if (command.kind == "drain") {
    start_drain();
  } else if (command.kind == "undrain") {
    draining_ = leaving_;
  } else {
    log::warning("the manager sent a command that this agent does not know: " + command.kind +
                 "; update the older side");
  }
}

void Agent::end_worker(WorkerProcess& worker, local::EndReason reason) {
  if (worker.state == State::ending) return;
  worker.told = reason;
  worker.refuse_at.reset();
  // Only calls in flight earn a grace.
  const bool serving = worker.state == State::serving;
  worker.kill_at = SteadyClock::now() + (serving ? options_.drain : std::min(options_.drain, idle_end_grace));
  if (worker.state != State::starting) worker.state = State::ending;
  const local::End end{.reason = reason};
  if (!local::send(worker.socket.get(), end)) worker.kill_at = SteadyClock::now();
  changed_ = true;
}

void Agent::start_drain() {
  if (draining_) return;
  draining_ = true;
  log::info("draining: calls in flight have " + std::to_string(options_.drain.count()) + " ms");
  for (auto& [id, worker] : workers_) end_worker(worker, local::EndReason::drained);
  changed_ = true;
}

void Agent::check_times() {
  const TimePoint now = SteadyClock::now();
  if (template_again_at_ && now >= *template_again_at_) {
    template_again_at_.reset();
    if (Status started = start_template(); !started) template_again_at_ = now + template_pause;
  }
  if (start_again_at_ && now >= *start_again_at_) start_again_at_.reset();
  for (auto& [id, worker] : workers_) {
    if (worker.refuse_at && now >= *worker.refuse_at) {
      answer(worker, Error(Errc::no_capacity, "the node's cores or memory are taken; ask for another worker"),
             {});
    }
    if (!worker.kill_at || now < *worker.kill_at) continue;
    worker.kill_at = now + end_grace;  // Again, if it is still there: a process in the kernel dies late.
    if (worker.pid > 0) ::kill(worker.pid, SIGKILL);
  }
  // A worker that was never born has no process to reap.
  for (auto entry = workers_.begin(); entry != workers_.end();) {
    WorkerProcess& worker = entry->second;
    if (worker.pid == -1 && !worker.socket.valid()) {
      on_worker_gone(worker, 0);
      entry = workers_.erase(entry);
    } else {
      ++entry;
    }
  }
}

void Agent::publish() {
  changed_ = false;
  api::Heartbeat heartbeat;
  heartbeat.draining = draining_;
  if (lends_by_order_) {
    heartbeat.cores = static_cast<std::uint32_t>(cores_.lent_count());
    heartbeat.memory_bytes = memory_lent_;
  }
  heartbeat.ended = std::exchange(ended_, {});
  for (const auto& [id, worker] : workers_) {
    if (worker.state == State::ready && !draining_) {
      heartbeat.ready.push_back({.id = id, .endpoints = worker.endpoints, .function = worker.function});
    } else if (worker.token) {
      heartbeat.serving.push_back(
          {.worker = id, .lease = worker.token->lease, .transport = worker.transport});
    }
  }
  link_.publish(std::move(heartbeat));
}

}  // namespace sublet::agent
