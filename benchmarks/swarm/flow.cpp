#include "benchmarks/swarm/flow.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <stdexcept>

namespace sublet::bench {
namespace {

constexpr std::size_t read_bytes = 256 * 1024;
constexpr std::string_view header_end = "\r\n\r\n";
constexpr std::uint32_t loopback_net = 127U << 24;
constexpr std::uint32_t net_mask = 255U << 24;
constexpr std::uint32_t peers_begin = 1U << 16;  // 127.1.0.0: not what others use.
constexpr std::string_view length_key = "Content-Length: ";

struct Answer {
  unsigned status = 0;
  std::string_view body;
  bool closes = false;
};

/// Nothing while more must come.
std::optional<Answer> parse(std::string_view bytes) {
  const std::size_t end = bytes.find(header_end);
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view header = bytes.substr(0, end + 2);
  const std::size_t length = number_after(header, length_key);
  const std::string_view rest = bytes.substr(end + header_end.size());
  if (rest.size() < length) return std::nullopt;
  return Answer{static_cast<unsigned>(number_after(header, "HTTP/1.1 ")), rest.substr(0, length),
                header.find("Connection: close") != std::string_view::npos};
}

}  // namespace

Target Target::parse(const std::string& url) {
  constexpr std::string_view scheme = "http://";
  const std::size_t colon = url.rfind(':');
  Target target;
  unsigned port = 0;
  if (url.starts_with(scheme) && colon >= scheme.size()) {
    target.host = url.substr(scheme.size(), colon - scheme.size());
    std::from_chars(url.data() + colon + 1, url.data() + url.size(), port);
  }
  in_addr address{};
  if (port == 0 || port > UINT16_MAX || inet_pton(AF_INET, target.host.c_str(), &address) != 1) {
    throw std::invalid_argument("'" + url + "' is no manager's address such as http://127.0.0.1:7400");
  }
  target.port = static_cast<std::uint16_t>(port);
  return target;
}

void Flow::take_address() const {
  in_addr to{};
  inet_pton(AF_INET, target_.host.c_str(), &to);
  if (peer_ == 0 || (ntohl(to.s_addr) & net_mask) != loopback_net) return;
  const int yes = 1;
  setsockopt(socket_.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof(yes));
  sockaddr_in from{};
  from.sin_family = AF_INET;
  from.sin_addr.s_addr = htonl(loopback_net + peers_begin + peer_);
  if (bind(socket_.get(), reinterpret_cast<const sockaddr*>(&from), sizeof(from)) != 0)
    throw std::runtime_error(std::string("bind to an address of 127.0.0.0/8: ") + std::strerror(errno));
}

bool Flow::open() {
  socket_.reset(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket_.valid()) throw std::runtime_error("out of sockets: raise the limit of open files (ulimit -n)");
  const int yes = 1;
  setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  take_address();
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(target_.port);
  inet_pton(AF_INET, target_.host.c_str(), &address.sin_addr);
  const int error = connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  if (error != 0 && errno != EINPROGRESS) return false;
  loop_.watch(socket_.get(), EPOLLIN | EPOLLOUT, *this);
  return true;
}

void Flow::send(std::string_view request) {
  busy_ = true;
  ++sends_;
  sent_at_ = SteadyClock::now();
  pending_.clear();
  if (!socket_.valid()) {
    out_ = request;
    if (!open()) lose_soon();
    return;  // Written once it is connected.
  }
  if (!out_.empty()) {
    out_ += request;
    return;
  }
  const ssize_t count = ::send(socket_.get(), request.data(), request.size(), MSG_NOSIGNAL);
  if (count < 0 && errno != EAGAIN && errno != EINTR) return lose_soon();
  const std::size_t taken = count > 0 ? static_cast<std::size_t>(count) : 0;
  if (taken == request.size()) return;
  out_ = request.substr(taken);
  loop_.change(socket_.get(), EPOLLIN | EPOLLOUT, *this);
}

void Flow::flush() {
  const ssize_t count = ::send(socket_.get(), out_.data(), out_.size(), MSG_NOSIGNAL);
  if (count < 0 && errno != EAGAIN && errno != EINTR) return lose();
  if (count > 0) out_.erase(0, static_cast<std::size_t>(count));
  if (out_.empty()) loop_.change(socket_.get(), EPOLLIN, *this);
}

void Flow::on_events(std::uint32_t epoll_events) {
  if ((epoll_events & (EPOLLERR | EPOLLHUP)) != 0 && (epoll_events & EPOLLIN) == 0) return lose();
  if ((epoll_events & EPOLLOUT) != 0) {
    flush();
    if (!socket_.valid()) return;
  }
  if ((epoll_events & EPOLLIN) == 0) return;
  static thread_local std::array<char, read_bytes> buffer;
  const ssize_t count = recv(socket_.get(), buffer.data(), buffer.size(), 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) return lose();
  take({buffer.data(), static_cast<std::size_t>(count)});
}

void Flow::take(std::string_view bytes) {
  if (!pending_.empty()) {
    pending_ += bytes;
    bytes = pending_;
  }
  const std::optional<Answer> answer = parse(bytes);
  if (!answer) {
    if (pending_.empty()) pending_ = bytes;
    return;
  }
  const std::string held = std::move(pending_);  // The body may lie in it, and the owner may send at once.
  pending_.clear();
  if (answer->closes) {
    socket_.reset();
    out_.clear();
  }
  busy_ = false;
  owner_.on_reply(*this, answer->status, answer->body);
}

void Flow::close() {
  socket_.reset();
  out_.clear();
  pending_.clear();
  busy_ = false;
}

void Flow::lose() {
  const bool was_busy = busy_;
  close();
  if (was_busy) owner_.on_lost(*this);
}

/// Not within send(): its caller has not finished.
void Flow::lose_soon() {
  loop_.at(SteadyClock::now(), [this, sends = sends_] {
    if (sends == sends_) lose();
  });
}

std::string http_request(std::string_view method_and_path, std::string_view body) {
  std::string text(method_and_path);
  text += " HTTP/1.1\r\nHost: sublet\r\n";
  if (!body.empty() || method_and_path.starts_with("POST")) {
    text += "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  }
  text += "\r\n";
  text += body;
  return text;
}

std::uint64_t number_after(std::string_view text, std::string_view key, std::size_t from) {
  std::uint64_t number = 0;
  const std::size_t at = text.find(key, from);
  if (at == std::string_view::npos) return 0;
  std::from_chars(text.data() + at + key.size(), text.data() + text.size(), number);
  return number;
}

}  // namespace sublet::bench
