#include "runtime/control/http_server.hpp"

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

constexpr std::chrono::milliseconds accept_pause{100};  // Out of descriptors: some come back meanwhile.

/// The first segment of `path`, which loses it and the slash before it.
std::string_view take_segment(std::string_view& path) noexcept {
  path.remove_prefix(1);
  const std::size_t end = path.find('/');
  const std::string_view segment = path.substr(0, end);
  path = end == std::string_view::npos ? std::string_view() : path.substr(end);
  return segment;
}

bool fits(std::string_view pattern, std::string_view path, std::map<std::string, std::string>& parameters) {
  parameters.clear();
  while (!pattern.empty() && !path.empty() && path.front() == '/') {
    const std::string_view want = take_segment(pattern);
    const std::string_view have = take_segment(path);
    if (want.size() > 2 && want.front() == '{') {
      if (have.empty()) return false;
      parameters[std::string(want.substr(1, want.size() - 2))] = std::string(have);
    } else if (want != have) {
      return false;
    }
  }
  return pattern.empty() && path.empty();
}

}  // namespace

Match match(const std::vector<Route>& routes, std::string_view method, std::string_view path) {
  Match found;
  for (const Route& route : routes) {
    if (!fits(route.pattern, path, found.parameters)) continue;
    if (route.method == method) {
      found.route = &route;
      return found;
    }
    if (found.allowed.find(route.method) == std::string::npos) {
      found.allowed += (found.allowed.empty() ? "" : ", ") + route.method;
    }
  }
  return found;
}

std::map<std::string, std::string> parse_query(std::string_view text) {
  std::map<std::string, std::string> out;
  while (!text.empty()) {
    const std::size_t end = text.find('&');
    const std::string_view pair = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    const std::size_t equals = pair.find('=');
    out[std::string(pair.substr(0, equals))] =
        equals == std::string_view::npos ? "" : std::string(pair.substr(equals + 1));
  }
  return out;
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

HttpReply reply_of(const Error& error) {
  const std::string text = error.detail().empty() ? std::string(explain(error.code())) : error.detail();
  return {.status = http_status(error.code()),
          .body = api::to_json(api::ErrorBody{std::string(name(error.code())), text})};
}

struct HttpServer::Impl : std::enable_shared_from_this<HttpServer::Impl> {
  Impl(asio::io_context& io, std::vector<Route> routes, ServerLimits bounds, Observer observer)
      : acceptor(io), pause(io), site(std::make_shared<Site>()) {
    site->routes = std::move(routes);
    site->bounds = bounds;
    site->observer = std::move(observer);
  }

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
    return {};
  }

  void accept() {
    acceptor.async_accept([self = shared_from_this()](error_code error, Tcp::socket socket) {
      if (!self->acceptor.is_open()) return;
      if (error) return self->accept_later();
      self->take(std::move(socket));
      self->accept();
    });
  }

  void accept_later() {
    pause.expires_after(accept_pause);
    pause.async_wait([self = shared_from_this()](error_code error) {
      if (!error && self->acceptor.is_open()) self->accept();
    });
  }

  void take(Tcp::socket socket) {
    error_code ignored;
    if (site->connections >= site->bounds.connections_max) {
      static constexpr std::string_view full =
          "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
      socket.non_blocking(true, ignored);
      socket.send(asio::buffer(full), 0, ignored);
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
  impl_->site->closing = true;
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
