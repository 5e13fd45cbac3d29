#include "benchmarks/baselines/stream.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

#include "benchmarks/baselines/await.hpp"

namespace sublet::bench {
namespace {

void require(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

void no_delay(int socket) {
  const int on = 1;
  require(setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0, "setsockopt");
}

}  // namespace

std::pair<Stream, Stream> Stream::tcp_pair() {
  const FileDescriptor listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const raw = reinterpret_cast<sockaddr*>(&address);
  require(bind(listener.get(), raw, size) == 0 && listen(listener.get(), 1) == 0, "listen");
  require(getsockname(listener.get(), raw, &size) == 0, "getsockname");
  FileDescriptor near(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  require(connect(near.get(), raw, size) == 0, "connect");
  FileDescriptor far(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  require(far.valid(), "accept");
  no_delay(near.get());
  no_delay(far.get());
  return {Stream(std::move(near)), Stream(std::move(far))};
}

std::pair<Stream, Stream> Stream::unix_pair() {
  std::array<int, 2> ends{};
  require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0, "socketpair");
  return {Stream(FileDescriptor(ends[0])), Stream(FileDescriptor(ends[1]))};
}

void Stream::send(std::span<const std::byte> data, std::chrono::microseconds hot) const {
  const auto attempt = [&] {
    const ssize_t count = ::send(socket_.get(), data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    require(count > 0 || errno == EAGAIN || errno == EINTR, "send");
    if (count > 0) data = data.subspan(static_cast<std::size_t>(count));
    return data.empty();
  };
  await(hot, attempt, [&] { sleep_on(socket_.get(), POLLOUT); });
}

std::size_t Stream::receive_some(std::span<std::byte> room, std::chrono::microseconds hot) const {
  ssize_t count = 0;
  await(
      hot,
      [&] {
        count = ::recv(socket_.get(), room.data(), room.size(), MSG_DONTWAIT);
        require(count > 0 || (count < 0 && (errno == EAGAIN || errno == EINTR)), "recv");
        return count > 0;
      },
      [&] { sleep_on(socket_.get()); });
  return static_cast<std::size_t>(count);
}

void Stream::receive(std::span<std::byte> room, std::chrono::microseconds hot) const {
  while (!room.empty()) room = room.subspan(receive_some(room, hot));
}

}  // namespace sublet::bench
