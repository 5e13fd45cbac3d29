#include "runtime/control/http_server.hpp"

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>

#include "runtime/control/api.hpp"
#include "runtime/control/event_loop_impl.hpp"
#include "runtime/control/http_connection.hpp"

namespace sublet::control {

namespace asio = boost::asio;
using boost::system::error_code;
using Tcp = asio::ip::tcp;

namespace {

constexpr int accepts_max = 64;  // In one turn of the loop.
constexpr std::chrono::milliseconds accept_pause{100};

constexpr std::chrono::milliseconds tick_min{10};
constexpr std::chrono::milliseconds tick_max{1000};
constexpr std::chrono::milliseconds full_retry{1000};

}  // namespace

Site::Site(asio::io_context& io, std::vector<Route> table, ServerLimits limits, HttpServer::Observer observe)
    : routes(std::move(table)),
      bounds(limits),
      observer(std::move(observe)),
      idle(limits.idle_max),
      busy(limits.request_max),
      lingering(limits.linger_max),
      timer_(io) {}

void Site::watch() {
  const auto shortest = std::min({bounds.idle_max, bounds.request_max, bounds.linger_max});
  timer_.expires_after(std::clamp<std::chrono::milliseconds>(shortest / 4, tick_min, tick_max));
  timer_.async_wait([self = shared_from_this()](error_code error) {
    if (error) return;
    const TimePoint now = SteadyClock::now();
    for (BoundedList* list : {&self->idle, &self->busy, &self->lingering}) list->expire_due(now);
    if (!self->closing || self->connections > 0) self->watch();
  });
}

void Site::close() noexcept {
  closing = true;
  while (idle.expire_first()) continue;
}

unsigned http_status(Errc code) noexcept {
  switch (code) {
    case Errc::invalid_argument:
    case Errc::protocol_error:
      return 400;
    case Errc::permission_denied:
      return 403;
    case Errc::not_found:
      return 404;
    case Errc::already_exists:
    case Errc::busy:
      return 409;
    case Errc::lease_expired:
    case Errc::lease_revoked:
    case Errc::closed:
      return 410;
    case Errc::too_large:
      return 413;
    case Errc::unavailable:
    case Errc::no_capacity:
    case Errc::queue_full:
      return 503;
    default:
      return 500;
  }
}

HttpReply reply_of(const Error& error, std::chrono::milliseconds retry_after) {
  const std::string text = error.detail().empty() ? std::string(explain(error.code())) : error.detail();
  const auto after_ms = static_cast<std::uint64_t>(std::max<std::int64_t>(retry_after.count(), 0));
  HttpReply reply{.status = http_status(error.code()),
                  .body = api::to_json(api::ErrorBody{std::string(name(error.code())), text, after_ms})};
  if (after_ms > 0) reply.headers.set("Retry-After", std::to_string((after_ms + 999) / 1000));
  return reply;
}

struct HttpServer::Impl : std::enable_shared_from_this<HttpServer::Impl> {
  Impl(asio::io_context& io, std::vector<Route> routes, ServerLimits bounds, Observer observer)
      : acceptor(io),
        pause(io),
        site(std::make_shared<Site>(io, std::move(routes), bounds, std::move(observer))) {}

  Status open(const Tcp::endpoint& endpoint) {
    error_code error;
    const auto check = [&](const char* what) {
      return Error(Errc::io_error, std::string("cannot ") + what + " " + endpoint.address().to_string() +
                                       ":" + std::to_string(endpoint.port()) + ": " + error.message());
    };
    acceptor.open(endpoint.protocol(), error);
    if (error) return check("open a socket for");
    acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
    acceptor.bind(endpoint, error);
    if (error) return check("listen on");
    acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) return check("listen on");
    acceptor.non_blocking(true, error);
    return {};
  }

  /// After a restart thousands come at once, and those that find the system's queue full come a second late.
  void take_waiting() {
    for (int i = 0; i < accepts_max; ++i) {
      error_code error;
      Tcp::socket socket = acceptor.accept(error);
      if (error) return;
      take(std::move(socket));
    }
  }

  void accept() {
    acceptor.async_accept([self = shared_from_this()](error_code error, Tcp::socket socket) {
      if (!self->acceptor.is_open()) return;
      if (error) return self->accept_later();  // Out of descriptors.
      self->take(std::move(socket));
      self->take_waiting();
      self->accept();
    });
  }

  void accept_later() {
    site->make_room();
    pause.expires_after(accept_pause);
    pause.async_wait([self = shared_from_this()](error_code error) {
      if (!error && self->acceptor.is_open()) self->accept();
    });
  }

  void take(Tcp::socket socket) {
    error_code ignored;
    if (site->connections >= site->bounds.connections_max && !site->make_room()) {
      const HttpReply reply = reply_of(
          Error(Errc::unavailable, "all connections are in use; try again, or raise http_connections_max"),
          full_retry);
      std::string text;
      append_head(text, reply, reply.body.size(), false);
      socket.non_blocking(true, ignored);
      socket.send(asio::buffer(text + reply.body), 0, ignored);
      return;
    }
    socket.set_option(Tcp::no_delay(true), ignored);
    serve(site, std::move(socket));
  }

  Tcp::acceptor acceptor;
  asio::steady_timer pause;
  std::shared_ptr<Site> site;
};

HttpServer::HttpServer(std::shared_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}

HttpServer::~HttpServer() {
  error_code ignored;
  impl_->acceptor.close(ignored);
  impl_->pause.cancel();
  impl_->site->close();
  impl_->site->observer = nullptr;  // Requests that are dropped from now on are nobody's to count.
}

Result<std::unique_ptr<HttpServer>> HttpServer::listen(EventLoop& loop, const std::string& address,
                                                       std::uint16_t port, std::vector<Route> routes,
                                                       ServerLimits bounds, Observer observer) {
  error_code error;
  const asio::ip::address parsed = asio::ip::make_address(address, error);
  if (error) {
    return Error(Errc::invalid_argument, "'" + address + "' is no numeric address, such as 127.0.0.1 or ::1");
  }
  auto impl = std::make_shared<Impl>(loop.impl().io, std::move(routes), bounds, std::move(observer));
  if (Status opened = impl->open({parsed, port}); !opened) return opened.error();
  impl->site->watch();
  impl->accept();
  return std::make_unique<HttpServer>(std::move(impl));
}

std::uint16_t HttpServer::port() const noexcept {
  error_code ignored;
  return impl_->acceptor.local_endpoint(ignored).port();
}

std::size_t HttpServer::connections() const noexcept {
  return impl_->site->connections;
}

}  // namespace sublet::control
