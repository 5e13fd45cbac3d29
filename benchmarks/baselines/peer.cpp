#include "benchmarks/baselines/peer.hpp"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <utility>

#include "benchmarks/baselines/await.hpp"
#include "benchmarks/frame/pinning.hpp"

namespace sublet::bench {
namespace {

constexpr int sleep_max_ms = 1000;

/// Empty: ready.
using Reason = std::array<char, 256>;

std::pair<FileDescriptor, FileDescriptor> socket_pair() {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    throw std::runtime_error(std::string("socketpair: ") + std::strerror(errno));
  return {FileDescriptor(ends[0]), FileDescriptor(ends[1])};
}

[[noreturn]] void be_peer(FileDescriptor socket, pid_t parent, const std::vector<int>& cores,
                          const Peer::Serve& serve) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  setsid();  // As workers do: some kernels share processor time among sessions.
  const Control control(std::move(socket));
  try {
    pin(cores);
    serve(control);
  } catch (const std::exception& error) {
    Reason reason{};
    std::snprintf(reason.data(), reason.size(), "%s", error.what());
    try {
      control.send(reason);
    } catch (const std::exception&) {
      _exit(1);  // The one who would have listened has gone.
    }
  }
  _exit(0);
}

}  // namespace

void sleep_on(int descriptor, short events) {
  pollfd wait{descriptor, events, 0};
  ::poll(&wait, 1, sleep_max_ms);
}

void Control::send(const void* data, std::size_t bytes) const {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t count = ::send(socket_.get(), at, bytes, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) throw std::runtime_error("the other end of a baseline has gone");
    at += count;
    bytes -= static_cast<std::size_t>(count);
  }
}

void Control::receive(void* data, std::size_t bytes) const {
  char* at = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t count = ::recv(socket_.get(), at, bytes, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) throw std::runtime_error("the other end of a baseline has gone");
    at += count;
    bytes -= static_cast<std::size_t>(count);
  }
}

void say_ready(const Control& control) {
  control.send(Reason{});
}

Peer::Peer(const std::vector<int>& cores, const Serve& serve) : Peer(socket_pair(), cores, serve) {}

Peer::Peer(std::pair<FileDescriptor, FileDescriptor> ends, const std::vector<int>& cores, const Serve& serve)
    : control_(std::move(ends.first)) {
  std::fflush(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) throw std::runtime_error(std::string("fork: ") + std::strerror(errno));
  if (pid_ == 0) be_peer(std::move(ends.second), parent, cores, serve);
}

Peer::~Peer() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void Peer::wait_until_ready() const {
  Reason reason = control_.receive<Reason>();
  reason.back() = '\0';
  if (reason.front() != '\0') throw std::runtime_error(reason.data());
}

}  // namespace sublet::bench
