#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/limits.hpp"
#include "runtime/base/result.hpp"
#include "runtime/control/event_loop.hpp"
#include "runtime/control/http_pairs.hpp"

namespace sublet::control {

struct HttpRequest {
  std::string method;
  std::string path;  ///< Without the query; not decoded.
  Pairs parameters;  ///< What the route's {placeholders} stand for.
  Pairs query;
  Pairs headers;  ///< Names in lower case.
  std::string body;
};

struct HttpReply {
  unsigned status = 200;
  std::string body;
  const char* content_type = "application/json";
  Pairs headers;
  std::shared_ptr<const std::string> shared_body;  ///< Instead of `body`: large bytes sent to many, uncopied.
};

/// The HTTP status that tells of `code`.
[[nodiscard]] unsigned http_status(Errc code) noexcept;
/// The reply with an ErrorBody.
/// @param retry_after When what is missing may be had, if that is known: also told by the header Retry-After.
[[nodiscard]] HttpReply reply_of(const Error& error, std::chrono::milliseconds retry_after = {});

/// Answers one request, now or later, on the loop's thread. Copies answer the same request; the first
/// send() counts. When the last copy goes without an answer the peer gets `internal`.
class Responder {
 public:
  void send(HttpReply reply) const;
  void send(const Error& error) const { send(reply_of(error)); }
  /// Called once, on the loop's thread, when the peer goes away before the answer. At most one callback.
  /// With one, a peer that closes its sending side has gone; without, it still gets its answer.
  void on_gone(std::function<void()> callback) const;

  struct State;
  explicit Responder(std::shared_ptr<State> state) noexcept : state_(std::move(state)) {}

 private:
  std::shared_ptr<State> state_;
};

/// A pattern is a path whose {names} stand for one segment each. The first route that fits is taken.
struct Route {
  std::string method;
  std::string pattern;
  std::size_t body_bytes_max = 0;
  std::function<void(const HttpRequest&, const Responder&)> handler;
};

struct ServerLimits {
  std::size_t header_bytes_max = limits::http_header_bytes_max;
  std::size_t connections_max = limits::http_connections_max;
  std::size_t bodies_bytes_max = limits::http_bodies_bytes_max;
  std::chrono::milliseconds idle_max = limits::http_idle_max;
  std::chrono::milliseconds request_max = limits::http_request_max;
  std::chrono::milliseconds linger_max = limits::http_linger_max;
};

/// An HTTP/1.1 server on an EventLoop: keep-alive, pipelined requests answered in order, every wait
/// for a peer bounded. With all connections taken a new one closes the one that is idle longest.
/// Thread safety: the loop's thread.
class HttpServer {
 public:
  /// Called once for each answer; `route` is the pattern, empty when none fits.
  using Observer = std::function<void(const std::string& method, const std::string& route, unsigned status)>;

  /// @param address Numeric, "127.0.0.1" or "::1".
  /// @param port    0 picks a free one.
  /// @retval Errc::invalid_argument The address cannot be parsed.
  /// @retval Errc::io_error         It cannot be listened on; the message says why.
  [[nodiscard]] static Result<std::unique_ptr<HttpServer>> listen(EventLoop& loop, const std::string& address,
                                                                  std::uint16_t port,
                                                                  std::vector<Route> routes,
                                                                  ServerLimits bounds = {},
                                                                  Observer observer = {});
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  [[nodiscard]] std::uint16_t port() const noexcept;
  [[nodiscard]] std::size_t connections() const noexcept;

  struct Impl;
  explicit HttpServer(std::shared_ptr<Impl> impl) noexcept;

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace sublet::control
