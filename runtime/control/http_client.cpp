#include "runtime/control/http_client.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/buffer.hpp>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstring>
#include <optional>
#include <vector>

#include "runtime/base/clock.hpp"
#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/control/api.hpp"
#include "runtime/control/http_message.hpp"

namespace sublet::control {
namespace {

namespace http = boost::beast::http;

constexpr std::size_t inbox_bytes_max = 2 * limits::http_header_bytes_max;
constexpr int interim_max = 8;  // Answers of status 1xx before the final one.

struct Address {
  std::string host;
  std::string port;
};

Result<Address> parse_url(const std::string& url) {
  constexpr std::string_view scheme = "http://";
  const Error wrong(Errc::invalid_argument,
                    "a manager's address is http://HOST:PORT without a path, not '" + url + "'");
  if (!url.starts_with(scheme)) return wrong;
  std::string rest = url.substr(scheme.size());
  if (rest.ends_with('/')) rest.pop_back();
  const std::size_t colon = rest.rfind(':');
  if (colon == std::string::npos || colon == 0) return wrong;
  Address address{rest.substr(0, colon), rest.substr(colon + 1)};
  if (address.host.size() > 2 && address.host.front() == '[' && address.host.back() == ']') {
    address.host = address.host.substr(1, address.host.size() - 2);
  } else if (address.host.find_first_of("/:@[] ") != std::string::npos) {
    return wrong;
  }
  std::uint16_t number = 0;
  const char* end = address.port.data() + address.port.size();
  const auto [stop, error] = std::from_chars(address.port.data(), end, number);
  if (error != std::errc() || stop != end || number == 0) return wrong;
  return address;
}

/// The code of an ErrorBody's name; internal when it is not one of ours.
Errc code_named(std::string_view text) noexcept {
  for (std::uint16_t number = 1; number <= static_cast<std::uint16_t>(Errc::cancelled); ++number) {
    if (name(static_cast<Errc>(number)) == text) return static_cast<Errc>(number);
  }
  return Errc::internal;
}

bool repeatable(std::string_view method) noexcept {
  return method == "GET" || method == "PUT" || method == "DELETE";
}

bool known(std::string_view method) noexcept {
  return repeatable(method) || method == "POST";
}

constexpr std::size_t joined_bytes_max = 16 * 1024;  // A body up to this is sent in one piece with its head.

}  // namespace

struct HttpClient::Impl {
  using Answer = HttpMessage<false>;

  Impl(Address to, FileDescriptor wake_up) : address(std::move(to)), wake(std::move(wake_up)) {}

  Address address;
  FileDescriptor socket;
  FileDescriptor wake;  ///< An eventfd that cancel() makes readable for good.
  std::atomic<bool> cancelled = false;
  TimePoint deadline;
  std::vector<char> inbox;
  std::size_t inbox_bytes = 0;

  Result<HttpAnswer> exchange(std::string_view method, const std::string& head, const std::string& body);
  Result<HttpAnswer> exchange_once(const std::string& head, const std::string& body,
                                   bool& lost_before_answer);
  Status connect();
  Status connect_to(const addrinfo& to, TimePoint until);
  bool kept_open() noexcept;
  Status wait(short events, TimePoint until, const char* doing, short& ready);
  Status send(const std::string& head, const std::string& body);
  Status receive(Answer& answer, bool& got_some);
  Result<std::size_t> receive_some();
  Error unreachable(const char* doing, int error) const;
  Error not_http(boost::system::error_code error) const;
  [[nodiscard]] std::string where() const { return address.host + ":" + address.port; }
};

Error HttpClient::Impl::unreachable(const char* doing, int error) const {
  return {Errc::unavailable, "cannot reach " + where() + " while " + doing + ": " +
                                 (error == 0 ? "the connection was closed" : std::strerror(error)) +
                                 "; check that the manager runs there"};
}

Error HttpClient::Impl::not_http(boost::system::error_code error) const {
  if (error == http::error::body_limit || error == http::error::header_limit) {
    return {Errc::too_large, "the answer of " + where() + " exceeds the limit"};
  }
  return {Errc::protocol_error, where() + " does not answer in HTTP: " + error.message()};
}

/// Waits until the socket has one of `events`, which are then in `ready`.
Status HttpClient::Impl::wait(short events, TimePoint until, const char* doing, short& ready) {
  while (true) {
    if (cancelled) return Error(Errc::closed, "the request to " + where() + " was cancelled");
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - SteadyClock::now());
    if (left.count() <= 0) {
      return Error(Errc::timeout, "no answer from " + where() + " in time while " + doing);
    }
    std::array<pollfd, 2> watched{pollfd{socket.get(), events, 0}, pollfd{wake.get(), POLLIN, 0}};
    const int count = ::poll(watched.data(), watched.size(),
                             static_cast<int>(std::min<std::int64_t>(left.count(), INT_MAX)));
    if (count < 0 && errno != EINTR) return unreachable(doing, errno);
    if (count > 0 && watched[0].revents != 0) {
      ready = watched[0].revents;
      return {};
    }
  }
}

Status HttpClient::Impl::connect_to(const addrinfo& to, TimePoint until) {
  socket.reset(::socket(to.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return unreachable("opening a socket", errno);
  const int on = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (::connect(socket.get(), to.ai_addr, to.ai_addrlen) == 0) return {};
  if (errno != EINPROGRESS) return unreachable("connecting", errno);
  short ready = 0;
  if (Status waited = wait(POLLOUT, until, "connecting", ready); !waited) return waited;
  int error = 0;
  socklen_t length = sizeof(error);
  ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) return unreachable("connecting", error);
  return {};
}

Status HttpClient::Impl::connect() {
  inbox_bytes = 0;
  const addrinfo hints{.ai_flags = AI_NUMERICSERV, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* list = nullptr;
  if (const int wrong = ::getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &list);
      wrong != 0) {
    return Error(Errc::unavailable, "cannot find the address of " + where() + ": " + ::gai_strerror(wrong) +
                                        "; check the manager's name");
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
  int left = 0;
  for (const addrinfo* to = list; to != nullptr; to = to->ai_next) ++left;
  Status connected = unreachable("looking up the name", EADDRNOTAVAIL);
  for (const addrinfo* to = list; to != nullptr; to = to->ai_next, --left) {
    const TimePoint now = SteadyClock::now();  // An address that is silent leaves time for the others.
    connected = connect_to(*to, now + (deadline - now) / left);
    if (connected || connected.error().code() == Errc::closed) return connected;
  }
  return connected;
}

/// Whether the kept connection can carry a request: told without a byte sent, so that even a request
/// that must not be repeated survives a server that closed an idle connection.
bool HttpClient::Impl::kept_open() noexcept {
  if (!socket.valid() || inbox_bytes > 0) return false;
  char byte = 0;
  const ssize_t count = ::recv(socket.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

/// Stops early, without an error, when the server answers already.
Status HttpClient::Impl::send(const std::string& head, const std::string& body) {
  const std::size_t all = head.size() + body.size();
  std::size_t sent = 0;
  while (sent < all) {
    const std::size_t of_head = std::min(sent, head.size());
    const std::size_t of_body = sent - of_head;
    std::array<iovec, 2> pieces{iovec{const_cast<char*>(head.data()) + of_head, head.size() - of_head},
                                iovec{const_cast<char*>(body.data()) + of_body, body.size() - of_body}};
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = pieces.size();
    const ssize_t count = ::sendmsg(socket.get(), &message, MSG_NOSIGNAL);
    if (count >= 0) {
      sent += static_cast<std::size_t>(count);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return unreachable("sending", errno);
    short ready = 0;
    if (Status waited = wait(POLLOUT | POLLIN, deadline, "sending", ready); !waited) return waited;
    if ((ready & POLLIN) != 0) return unreachable("sending", 0);
  }
  return {};
}

/// 0: the server sends no more.
Result<std::size_t> HttpClient::Impl::receive_some() {
  while (true) {
    short ready = 0;
    if (Status waited = wait(POLLIN, deadline, "waiting for the answer", ready); !waited)
      return waited.error();
    const ssize_t count = ::recv(socket.get(), inbox.data() + inbox_bytes, inbox.size() - inbox_bytes, 0);
    if (count >= 0) return static_cast<std::size_t>(count);
    if (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK) {
      return unreachable("waiting for the answer", errno);
    }
  }
}

/// `inbox` may hold the beginning already: what followed an answer before the final one.
Status HttpClient::Impl::receive(Answer& answer, bool& got_some) {
  answer.body_limit(limits::function_bytes_max);
  answer.eager(true);
  bool more = inbox_bytes == 0;
  while (!answer.is_done()) {
    bool end = false;
    if (more) {
      const Result<std::size_t> count = receive_some();
      if (!count) return count.error();
      inbox_bytes += *count;
      end = *count == 0;
    }
    got_some = got_some || inbox_bytes > 0;
    if (end && !got_some) return unreachable("waiting for the answer", 0);
    boost::system::error_code error;
    std::size_t taken = 0;
    if (end) {
      answer.put_eof(error);
      if (error == http::error::partial_message) return unreachable("reading the answer", 0);
    } else {
      taken = answer.put(boost::asio::const_buffer(inbox.data(), inbox_bytes), error);
    }
    more = error == http::error::need_more || taken == inbox_bytes;
    inbox_bytes -= taken;
    std::memmove(inbox.data(), inbox.data() + taken, inbox_bytes);
    if (error == http::error::need_more && inbox_bytes == inbox.size()) error = http::error::header_limit;
    if (error && error != http::error::need_more) return not_http(error);
  }
  return {};
}

Result<HttpAnswer> HttpClient::Impl::exchange_once(const std::string& head, const std::string& body,
                                                   bool& lost_before_answer) {
  const Status sent = send(head, body);
  if (!sent && sent.error().code() != Errc::unavailable) return sent.error();
  // A server that refuses a request may close before it has all of it: the answer says why.
  std::optional<Answer> answer;
  for (int before = 0; !answer || answer->status / 100 == 1; ++before) {
    if (before > interim_max) return Error(Errc::protocol_error, where() + " goes on without an answer");
    answer.emplace(limits::http_header_bytes_max);
    bool got_some = false;
    if (Status received = receive(*answer, got_some); !received) {
      lost_before_answer = received.error().code() == Errc::unavailable && !got_some && before == 0;
      return sent ? received.error() : sent.error();
    }
  }
  if (!sent || !answer->keep_alive()) socket.reset();
  return HttpAnswer{answer->status, std::move(answer->body), std::move(answer->headers)};
}

Result<HttpAnswer> HttpClient::Impl::exchange(std::string_view method, const std::string& head,
                                              const std::string& body) {
  for (bool again = true;; again = false) {
    const bool kept = kept_open();
    if (!kept) {
      if (Status connected = connect(); !connected) {
        socket.reset();
        return connected.error();
      }
    }
    bool lost_before_answer = false;
    Result<HttpAnswer> answer = exchange_once(head, body, lost_before_answer);
    if (answer) return answer;
    socket.reset();
    if (!kept || !again || !lost_before_answer || cancelled || !repeatable(method)) return answer;
  }
}

HttpClient::HttpClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpClient::~HttpClient() = default;

Result<std::unique_ptr<HttpClient>> HttpClient::create(const std::string& url) {
  Result<Address> address = parse_url(url);
  if (!address) return address.error();
  FileDescriptor wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) {
    return Error(Errc::io_error,
                 std::string("eventfd: ") + std::strerror(errno) + "; raise the limit of open files");
  }
  return std::unique_ptr<HttpClient>(
      new HttpClient(std::make_unique<Impl>(*std::move(address), std::move(wake))));
}

Result<HttpAnswer> HttpClient::request(std::string_view method, const std::string& target, std::string body,
                                       std::chrono::milliseconds timeout, const Pairs& headers) {
  if (!known(method)) return Error(Errc::invalid_argument, "unknown HTTP method");
  if (target.empty() || target.front() != '/' || target.find_first_of(" \r\n") != std::string::npos) {
    return Error(Errc::invalid_argument, "a request's target starts with / and has no blanks");
  }
  std::string head;
  head.append(method).append(" ").append(target).append(" HTTP/1.1\r\nHost: ").append(impl_->where());
  for (const auto& [name, value] : headers) head.append("\r\n").append(name).append(": ").append(value);
  if (!body.empty() || method == "POST" || method == "PUT") {
    head.append("\r\nContent-Length: ").append(std::to_string(body.size()));
  }
  head += "\r\n\r\n";
  if (body.size() <= joined_bytes_max) head += std::exchange(body, {});
  impl_->inbox.resize(inbox_bytes_max);
  impl_->deadline = SteadyClock::now() + timeout;
  return impl_->exchange(method, head, body);
}

void HttpClient::cancel() noexcept {
  impl_->cancelled = true;
  const std::uint64_t one = 1;
  static_cast<void>(::write(impl_->wake.get(), &one, sizeof(one)));  // Never read: readable from now on.
}

Result<std::string> body_of(Result<HttpAnswer> answer) {
  if (!answer) return answer.error();
  if (answer->status >= 200 && answer->status < 300) return std::move(answer->body);
  const Result<api::ErrorBody> refusal = api::from_json<api::ErrorBody>(answer->body);
  if (!refusal) {
    return Error(Errc::protocol_error, "HTTP status " + std::to_string(answer->status) +
                                           " without a reason of ours; is this the manager's address?");
  }
  return Error(code_named(refusal->error), refusal->message);
}

}  // namespace sublet::control
