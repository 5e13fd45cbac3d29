#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "executor/worker/core_binding.hpp"
#include "executor/worker/worker.hpp"
#include "runtime/base/digest.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::worker {
namespace {

/// The agent is the subreaper of its template: a worker whose first parent has gone becomes the agent's
/// child. Another parent means that the agent died meanwhile; that is not always process 1, since a session
/// may have a subreaper of its own.
void wait_for_adoption(pid_t agent, pid_t first_parent) noexcept {
  for (pid_t parent = ::getppid(); parent != agent; parent = ::getppid()) {
    if (parent != first_parent) ::_exit(1);
    const timespec moment{.tv_sec = 0, .tv_nsec = 50'000};
    ::nanosleep(&moment, nullptr);
  }
  // Not before: it would be the end of the process between that killed this one.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != agent) ::_exit(1);
}

/// Whoever ends a whole group of processes, a batch system or a service manager, means the agent, which
/// drains: a worker goes on until it is told. A handler, which children of functions do not inherit, and not
/// SIG_IGN.
void leave_ending_to_agent() noexcept {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGTERM, &action, nullptr);
}

enum class Role { parent, worker };

/// Forks twice, so that the worker is nobody's child but the agent's.
Role fork_worker(pid_t agent, const local::Fork& spec, int socket) noexcept {
  const pid_t between = ::fork();
  if (between < 0) {
    std::fprintf(stderr, "sublet-worker: fork failed, errno %d; raise the limit on processes\n", errno);
    return Role::parent;  // The socket closes with the packet: the agent sees that the worker has ended.
  }
  if (between > 0) {
    while (::waitpid(between, nullptr, 0) < 0 && errno == EINTR) {
    }
    return Role::parent;
  }
  const pid_t first_parent = ::getpid();
  if (::fork() != 0) ::_exit(0);
  wait_for_adoption(agent, first_parent);
  const local::Forked forked{.worker = spec.worker, .pid = ::getpid()};
  if (!local::send(socket, forked).ok()) ::_exit(1);
  return Role::worker;
}

}  // namespace

int run_template(FileDescriptor agent) {
  const pid_t agent_pid = ::getppid();
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::prctl(PR_SET_NAME, "sublet-template");
  ::setsid();  // A terminal's Ctrl-C is for the agent: it drains.
  leave_ending_to_agent();
  preload_digests();
  {
    const CoreBinding stays;
    if (const Status loaded = transport::preload(); !loaded) {
      std::fprintf(stderr, "sublet-worker: %s; workers will serve without it\n",
                   loaded.error().message().c_str());
    }
  }
  for (;;) {
    pollfd wait{agent.get(), POLLIN, 0};
    if (::poll(&wait, 1, -1) < 0 && errno != EINTR) return 1;
    auto packet = local::receive(agent.get());
    if (!packet) {
      if (packet.error().code() == Errc::unavailable) continue;
      return 0;  // The agent has gone.
    }
    const auto spec = packet->as<local::Fork>();
    auto& [socket, usage] = packet->attached;
    if (!spec || !socket.valid() || !usage.valid()) {
      std::fprintf(stderr,
                   "sublet-worker: the agent sent what this template does not know; install one version\n");
      return 1;
    }
    if (fork_worker(agent_pid, *spec, socket.get()) == Role::worker) {
      agent.reset();
      return run_worker(*spec, std::move(socket), std::move(usage));
    }
  }
}

}  // namespace sublet::worker
