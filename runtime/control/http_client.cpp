#include "runtime/control/http_client.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <optional>

#include "runtime/base/clock.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/control/api.hpp"

namespace sublet::control {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Tcp = asio::ip::tcp;

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

bool repeatable(http::verb method) noexcept {
  return method == http::verb::get || method == http::verb::put || method == http::verb::delete_;
}

}  // namespace

struct HttpClient::Impl {
  using Request = http::request<http::string_body>;
  using Response = http::response_parser<http::string_body>;

  explicit Impl(Address to) : address(std::move(to)) {}

  Address address;
  asio::io_context io{1};  // One thread at a time runs it; cancel() only posts.
  std::optional<beast::tcp_stream> stream;
  beast::flat_buffer buffer{limits::http_header_bytes_max * 4};
  std::atomic<bool> cancelled = false;
  TimePoint deadline;

  Result<HttpAnswer> exchange(const Request& request);
  Result<HttpAnswer> exchange_once(const Request& request, bool& lost_before_answer);
  Status connect();
  bool kept_open() noexcept;
  Error explain(const char* doing, error_code error) const;

  /// Runs one asynchronous operation, started by `start(handler)`, to its end.
  template <typename Start>
  error_code run(Start start) {
    std::optional<error_code> result;
    stream->expires_at(deadline);
    start([&result](error_code error, auto&&...) { result = error; });
    while (!result) {
      if (cancelled) close();
      io.restart();
      io.run_one();
    }
    return *result;
  }

  void close() noexcept {
    if (stream) stream->close();
  }
};

Error HttpClient::Impl::explain(const char* doing, error_code error) const {
  const std::string where = address.host + ":" + address.port;
  if (cancelled) return {Errc::closed, "the request to " + where + " was cancelled"};
  if (error == beast::error::timeout) {
    return {Errc::timeout, "no answer from " + where + " in time while " + doing};
  }
  if (error == http::error::body_limit || error == http::error::header_limit ||
      error == http::error::buffer_overflow) {
    return {Errc::too_large, "the answer of " + where + " exceeds the limit"};
  }
  if (error.category() == make_error_code(http::error::bad_version).category() &&
      error != http::error::end_of_stream && error != http::error::partial_message) {
    return {Errc::protocol_error, where + " does not answer in HTTP: " + error.message()};
  }
  return {Errc::unavailable, "cannot reach " + where + " while " + doing + ": " + error.message() +
                                 "; check that the manager runs there"};
}

Status HttpClient::Impl::connect() {
  buffer.clear();
  stream.emplace(io);
  error_code error;
  Tcp::resolver resolver(io);
  const auto found = resolver.resolve(address.host, address.port, error);
  if (error) return explain("looking up the name", error);
  error = run([&](auto handler) { stream->async_connect(found, std::move(handler)); });
  if (error) return explain("connecting", error);
  stream->socket().set_option(Tcp::no_delay(true), error);
  return {};
}

/// Whether the kept connection can carry a request: told without a byte sent, so that even a request
/// that must not be repeated survives a server that closed an idle connection.
bool HttpClient::Impl::kept_open() noexcept {
  if (!stream || !stream->socket().is_open() || buffer.size() > 0) return false;
  char byte = 0;
  const ssize_t count = ::recv(stream->socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

Result<HttpAnswer> HttpClient::Impl::exchange_once(const Request& request, bool& lost_before_answer) {
  const error_code unsent =
      run([&](auto handler) { http::async_write(*stream, request, std::move(handler)); });
  if (unsent == beast::error::timeout || cancelled) return explain("sending", unsent);
  // A server that refuses a request may close before it has all of it: the answer says why.
  Response response;
  response.header_limit(limits::http_header_bytes_max);
  response.body_limit(limits::function_bytes_max);
  const error_code error =
      run([&](auto handler) { http::async_read(*stream, buffer, response, std::move(handler)); });
  if (error) {
    lost_before_answer = error != beast::error::timeout && !response.got_some();
    return unsent ? explain("sending", unsent) : explain("waiting for the answer", error);
  }
  HttpAnswer answer;
  answer.status = response.get().result_int();
  for (const auto& field : response.get()) {
    std::string name(field.name_string());
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    answer.headers[name] = std::string(field.value());
  }
  if (unsent || !response.get().keep_alive()) close();
  answer.body = std::move(response.get().body());
  return answer;
}

Result<HttpAnswer> HttpClient::Impl::exchange(const Request& request) {
  for (bool again = true;; again = false) {
    const bool kept = kept_open();
    if (!kept) {
      if (Status connected = connect(); !connected) {
        close();
        return connected.error();
      }
    }
    bool lost_before_answer = false;
    Result<HttpAnswer> answer = exchange_once(request, lost_before_answer);
    if (answer) return answer;
    close();
    if (!kept || !again || !lost_before_answer || cancelled || !repeatable(request.method())) return answer;
  }
}

HttpClient::HttpClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpClient::~HttpClient() = default;

Result<std::unique_ptr<HttpClient>> HttpClient::create(const std::string& url) {
  Result<Address> address = parse_url(url);
  if (!address) return address.error();
  return std::unique_ptr<HttpClient>(new HttpClient(std::make_unique<Impl>(*std::move(address))));
}

Result<HttpAnswer> HttpClient::request(std::string_view method, const std::string& target, std::string body,
                                       std::chrono::milliseconds timeout,
                                       const std::map<std::string, std::string>& headers) {
  const http::verb verb = http::string_to_verb({method.data(), method.size()});
  if (verb == http::verb::unknown) return Error(Errc::invalid_argument, "unknown HTTP method");
  if (target.empty() || target.front() != '/' || target.find_first_of(" \r\n") != std::string::npos) {
    return Error(Errc::invalid_argument, "a request's target starts with / and has no blanks");
  }
  Impl::Request request(verb, target, 11);
  request.set(http::field::host, impl_->address.host + ":" + impl_->address.port);
  for (const auto& [name, value] : headers) request.set(name, value);
  request.body() = std::move(body);
  request.prepare_payload();
  impl_->deadline = SteadyClock::now() + timeout;
  return impl_->exchange(request);
}

void HttpClient::cancel() noexcept {
  impl_->cancelled = true;
  try {
    asio::post(impl_->io, [] {});  // Only wakes run(), which sees the flag.
  } catch (const std::exception&) {
    // Without memory the request still ends, by its timeout.
  }
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
