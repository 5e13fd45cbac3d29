#include "executor/agent/order_socket.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "runtime/base/log.hpp"

namespace sublet::agent {
namespace {

constexpr int waiting_max = 8;
constexpr const char* socket_name = "/orders.sock";

Result<sockaddr_un> address_in(const std::string& state_dir) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = state_dir + socket_name;
  if (path.size() >= sizeof(address.sun_path))
    return Error(Errc::too_large, "--state-dir is too long for the socket in it: " + path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

Error failed(const char* call, const std::string& state_dir) {
  return {Errc::io_error, std::string(call) + " of the socket for orders in " + state_dir + ": " +
                              std::strerror(errno) + "; may this user write there?"};
}

}  // namespace

Status OrderSocket::listen(const std::string& state_dir) {
  const Result<sockaddr_un> address = address_in(state_dir);
  if (!address) return address.error();
  FileDescriptor listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!listener.valid()) return failed("creation", state_dir);
  ::fchmod(listener.get(), 0600);  // Before it has a name: nobody comes in between.
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) != 0)
    return failed("bind", state_dir);
  if (::listen(listener.get(), waiting_max) != 0) return failed("listen", state_dir);
  listener_ = std::move(listener);
  path_ = address->sun_path;
  return {};
}

OrderSocket::~OrderSocket() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

std::optional<FileDescriptor> OrderSocket::accept() {
  for (;;) {
    FileDescriptor connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!connection.valid()) return std::nullopt;
    ucred peer{};
    socklen_t size = sizeof(peer);
    const bool known = ::getsockopt(connection.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
                       (peer.uid == 0 || peer.uid == ::geteuid());
    if (known) return connection;
    log::warning("user " + std::to_string(peer.uid) + " may not give this agent orders");
  }
}

Result<FileDescriptor> connect_to_agent(const std::string& state_dir) {
  const Result<sockaddr_un> address = address_in(state_dir);
  if (!address) return address.error();
  FileDescriptor connection(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!connection.valid()) return failed("creation", state_dir);
  if (::connect(connection.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) == 0)
    return connection;
  if (errno == ENOENT || errno == ECONNREFUSED)
    return Error(Errc::not_found, "no agent uses " + state_dir + ": start one with that --state-dir");
  if (errno == EAGAIN)
    return Error(Errc::busy, "the agent in " + state_dir + " does not take orders: end it");
  return failed("connect", state_dir);
}

}  // namespace sublet::agent
