#include "benchmarks/socket_echo.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace sublet::bench {
namespace {

struct Round {
  std::uint64_t bytes;
  std::uint64_t calls;
};

void require(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(std::string("socket echo: ") + what + ": " + std::strerror(errno));
}

bool send_all(int socket, std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t count = send(socket, data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count > 0) data = data.subspan(static_cast<std::size_t>(count));
    if (count < 0 && errno != EAGAIN && errno != EINTR) return false;
  }
  return true;
}

/// Polls, unless `flags` say otherwise.
bool receive_all(int socket, std::span<std::byte> data, int flags = MSG_DONTWAIT) {
  while (!data.empty()) {
    const ssize_t count = recv(socket, data.data(), data.size(), flags);
    if (count > 0) data = data.subspan(static_cast<std::size_t>(count));
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) return false;
  }
  return true;
}

void no_delay(int socket) {
  const int on = 1;
  require(setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0, "setsockopt");
}

void serve(int socket) {
  std::vector<std::byte> message;
  Round round{};
  while (receive_all(socket, std::as_writable_bytes(std::span(&round, 1)), 0)) {
    message.resize(round.bytes);
    for (std::uint64_t i = 0; i < round.calls; ++i) {
      if (!receive_all(socket, message) || !send_all(socket, message)) return;
    }
  }
}

}  // namespace

SocketEcho::SocketEcho() {
  const FileDescriptor listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  require(listener.get() >= 0, "socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const raw = reinterpret_cast<sockaddr*>(&address);
  require(bind(listener.get(), raw, size) == 0 && listen(listener.get(), 1) == 0, "listen");
  require(getsockname(listener.get(), raw, &size) == 0, "getsockname");
  connection_ = FileDescriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  require(connect(connection_.get(), raw, size) == 0, "connect");
  const FileDescriptor accepted(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  require(accepted.get() >= 0, "accept");
  no_delay(connection_.get());
  no_delay(accepted.get());

  pid_ = fork();
  require(pid_ >= 0, "fork");
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(connection_.get());
    serve(accepted.get());
    _exit(0);
  }
}

SocketEcho::~SocketEcho() {
  connection_ = FileDescriptor();
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void SocketEcho::begin(std::size_t bytes, std::uint64_t calls) {
  const Round round{bytes, calls};
  require(send_all(connection_.get(), std::as_bytes(std::span(&round, 1))), "send");
}

void SocketEcho::exchange(std::span<std::byte> message) {
  require(send_all(connection_.get(), message) && receive_all(connection_.get(), message), "exchange");
}

}  // namespace sublet::bench
