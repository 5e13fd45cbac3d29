#include "runtime/transport/gate/gate.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "runtime/base/assert.hpp"
#include "runtime/transport/gate/internal.hpp"

namespace sublet::transport::gate {
namespace {

constexpr std::chrono::milliseconds linger_at_end_max{500};

Error failed(const std::string& what, int number) {
  const bool refused = number == ECONNREFUSED || number == ENOENT || number == EHOSTUNREACH ||
                       number == ENETUNREACH || number == ETIMEDOUT || number == EAGAIN || number == EACCES;
  return {refused ? Errc::unavailable : Errc::io_error, what + ": " + std::strerror(number)};
}

void set_no_delay(int socket) noexcept {
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));  // Refused on a unix socket.
}

}  // namespace

bool same_user(int socket) noexcept {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
  return peer.uid == ::geteuid() || peer.uid == 0;
}

Gate::Mailbox::Mailbox() : event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

bool Gate::Mailbox::post(Lingering lingering) {
  const std::lock_guard lock(mutex_);
  if (!open_) return false;
  posted_.push_back(std::move(lingering));
  const std::uint64_t one = 1;
  return ::write(event_.get(), &one, sizeof(one)) == sizeof(one) || errno == EAGAIN;
}

std::vector<Gate::Lingering> Gate::Mailbox::take_all() {
  const std::lock_guard lock(mutex_);
  std::uint64_t count = 0;
  if (::read(event_.get(), &count, sizeof(count)) < 0) return {};
  return std::exchange(posted_, {});
}

void Gate::Mailbox::close() {
  const std::lock_guard lock(mutex_);
  open_ = false;
}

Gate::Gate(const Timing& timing)
    : timing_(timing),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      last_service_(SteadyClock::now()),
      next_sweep_(last_service_),
      mailbox_(std::make_shared<Mailbox>()) {
  epoll_event event{EPOLLIN, {.u64 = mailbox_event}};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, mailbox_->descriptor(), &event);
}

Gate::~Gate() {
  mailbox_->close();
  const TimePoint deadline = SteadyClock::now() + linger_at_end_max;
  serve_lingering(true);
  while (!lingering_.empty() && SteadyClock::now() < deadline) {
    service(lingering_step);
    serve_lingering(true);
  }
  lingering_.clear();
  for (auto& [id, entry] : entries_) {
    entry.link->set_down(Errc::closed);
    entry.link->hang_up();
  }
  if (!unlink_at_end_.empty()) ::unlink(unlink_at_end_.c_str());
}

Result<Address> Gate::listen(const Address& address) {
  if (!epoll_.valid()) return failed("epoll_create1", errno);
  if (listener_.valid()) return Error(Errc::already_exists, "this transport listens already");
  const int family = address.storage.ss_family;
  FileDescriptor socket(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return failed("socket", errno);
  const int on = 1;
  if (family == AF_UNIX) {
    ::fchmod(socket.get(), S_IRUSR | S_IWUSR);  // Before bind: the file never has another mode.
  } else {
    ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  }
  if (::bind(socket.get(), address.get(), address.length) != 0) {
    if (errno == EADDRINUSE) return Error(Errc::already_exists, to_text(address) + " is in use");
    return failed("cannot listen on " + to_text(address), errno);
  }
  if (family == AF_UNIX) unlink_at_end_ = to_text(address);
  if (::listen(socket.get(), SOMAXCONN) != 0) return failed("listen", errno);
  Address bound;
  bound.length = sizeof(bound.storage);
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound.storage), &bound.length) != 0) {
    return failed("getsockname", errno);
  }
  epoll_event event{EPOLLIN, {.u64 = listener_event}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket.get(), &event) != 0) return failed("epoll_ctl", errno);
  listener_ = std::move(socket);
  return bound;
}

std::vector<ConnectRequest> Gate::requests() {
  std::vector<ConnectRequest> requests;
  for (const std::uint64_t id : std::exchange(fresh_requests_, {})) {
    const auto found = entries_.find(id);
    if (found != entries_.end() && found->second.stage == Stage::waiting) {
      requests.push_back({id, found->second.greeting.private_data});
    }
  }
  return requests;
}

Result<Gate::Visitor> Gate::take(std::uint64_t request) {
  const auto found = entries_.find(request);
  if (found == entries_.end() || found->second.stage != Stage::waiting) {
    return Error(Errc::peer_lost, "the peer that asked to connect has gone");
  }
  Entry& entry = found->second;
  make_live(entry);
  return Visitor{entry.link, std::move(entry.greeting)};
}

Status Gate::send_accept(Link& link, std::span<const std::byte> private_data,
                         std::span<const std::byte> backend, std::span<const int> files) {
  if (private_data.size() > limits::accept_private_bytes) {
    return Error(Errc::too_large, "an acceptance carries at most " +
                                      std::to_string(limits::accept_private_bytes) + " private bytes");
  }
  const HandshakeFront front{static_cast<std::uint16_t>(private_data.size()),
                             static_cast<std::uint16_t>(backend.size())};
  const std::array pieces{std::as_bytes(std::span(&front, 1)), private_data, backend};
  if (!send_frame(link.socket(), FrameType::accept, pieces, files)) {
    return Error(Errc::peer_lost, "the peer left before it was accepted");
  }
  return {};
}

void Gate::refuse(std::uint64_t request, std::span<const std::byte> private_data) noexcept {
  const auto found = entries_.find(request);
  if (found == entries_.end() || found->second.stage != Stage::waiting) return;
  const std::array pieces{private_data.first(std::min(private_data.size(), limits::reject_private_bytes))};
  send_frame(found->second.link->socket(), FrameType::refuse, pieces);
  remove(request);
}

Result<std::uint64_t> Gate::start_connect(const Address& address, std::span<const std::byte> private_data,
                                          std::span<const std::byte> backend, std::span<const int> files,
                                          TimePoint deadline) {
  if (private_data.size() > limits::connect_private_bytes) {
    return Error(Errc::too_large, "a connect request carries at most " +
                                      std::to_string(limits::connect_private_bytes) + " private bytes");
  }
  FileDescriptor socket(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return failed("socket", errno);
  set_no_delay(socket.get());
  const bool is_unix = address.storage.ss_family == AF_UNIX;
  SUBLET_ASSERT(is_unix || files.empty());
  int error = ::connect(socket.get(), address.get(), address.length) == 0 ? 0 : errno;
  while (is_unix && error == EAGAIN && SteadyClock::now() < deadline) {  // Its queue is full: come again.
    service(lingering_step);
    error = ::connect(socket.get(), address.get(), address.length) == 0 ? 0 : errno;
  }
  if (error != 0 && error != EINPROGRESS) return failed("cannot connect to " + to_text(address), error);
  if (is_unix && !same_user(socket.get())) {
    return Error(Errc::permission_denied, to_text(address) + " belongs to another user; use tcp");
  }
  const std::uint64_t id = add(std::move(socket), Stage::connecting, error == 0 ? EPOLLIN : EPOLLOUT);
  Entry& entry = entries_.at(id);
  entry.peer = address;
  entry.deadline = deadline;
  entry.greeting.private_data.assign(private_data.begin(), private_data.end());
  entry.greeting.backend.assign(backend.begin(), backend.end());
  if (error == 0) say_hello(id, entry, files);
  return id;
}

void Gate::say_hello(std::uint64_t id, Entry& entry, std::span<const int> files) {
  const Greeting hello = std::exchange(entry.greeting, {});
  const HandshakeFront front{static_cast<std::uint16_t>(hello.private_data.size()),
                             static_cast<std::uint16_t>(hello.backend.size())};
  const std::array<std::span<const std::byte>, 3> pieces{std::as_bytes(std::span(&front, 1)),
                                                         hello.private_data, hello.backend};
  if (entry.stage == Stage::connecting) entry.stage = Stage::asking;
  if (!send_frame(entry.link->socket(), FrameType::hello, pieces, files)) {
    end(id, {Errc::unavailable, to_text(entry.peer) + " closed the connection"});
  }
}

bool Gate::is_attempt(Stage stage) noexcept {
  return stage == Stage::connecting || stage == Stage::asking || stage == Stage::answered ||
         stage == Stage::ended;
}

std::optional<Result<Gate::Admission>> Gate::take_admission(std::uint64_t id) {
  const auto found = entries_.find(id);
  if (found == entries_.end() || !is_attempt(found->second.stage)) {
    return Error(Errc::not_found, "no such attempt to connect");
  }
  Entry& entry = found->second;
  if (entry.stage == Stage::answered) {
    make_live(entry);
    return Admission{entry.link, std::move(entry.greeting), entry.peer};
  }
  if (entry.stage == Stage::ended) {
    const Error failure = std::move(entry.failure);
    remove(id);
    return failure;
  }
  if (SteadyClock::now() < entry.deadline) return std::nullopt;
  const Error late(Errc::timeout, to_text(entry.peer) + " did not answer in time");
  remove(id);
  return late;
}

void Gate::give_up(std::uint64_t id) noexcept {
  const auto found = entries_.find(id);
  if (found != entries_.end() && is_attempt(found->second.stage)) remove(id);
}

Status Gate::watch(int event) {
  epoll_event interest{EPOLLIN, {.u64 = waited_event}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, event, &interest) != 0) return failed("epoll_ctl", errno);
  return {};
}

void Gate::forget(int event) noexcept {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, event, nullptr);
}

Status Gate::wait_for(int event, const Link& link, TimePoint deadline) {
  Status status = watch(event);
  if (!status) return status;
  while (true) {
    std::uint64_t count = 0;
    if (::read(event, &count, sizeof(count)) == sizeof(count)) break;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - SteadyClock::now());
    if (!link.up()) {
      status = Error(Errc::peer_lost, "the peer left during the handshake");
      break;
    }
    if (left.count() <= 0) {
      status = Error(Errc::timeout, "the peer did not finish the handshake in time");
      break;
    }
    service(left);
  }
  forget(event);
  return status;
}

std::uint64_t Gate::add(FileDescriptor socket, Stage stage, std::uint32_t events) {
  const std::uint64_t id = next_id_++;
  epoll_event event{events, {.u64 = id}};
  const bool watched = ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket.get(), &event) == 0;
  set_no_delay(socket.get());
  Entry& entry = entries_[id];
  entry.link = std::make_shared<Link>(std::move(socket));
  entry.stage = stage;
  entry.since = entry.heard = SteadyClock::now();
  if (!watched) end(id, {Errc::out_of_memory, "epoll_ctl: the limit of watched descriptors is reached"});
  return id;
}

}  // namespace sublet::transport::gate
