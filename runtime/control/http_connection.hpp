#pragma once

// Private to this layer's .cpp files: it names Boost.

#include <boost/asio/ip/tcp.hpp>
#include <memory>

#include "runtime/control/http_server.hpp"

namespace sublet::control {

/// What the connections of one server share; lives as long as the last of them.
struct Site {
  std::vector<Route> routes;
  ServerLimits bounds;
  HttpServer::Observer observer;
  std::size_t connections = 0;
  std::size_t bodies_bytes = 0;  ///< Promised or held by requests under way.
  bool closing = false;          ///< No request after the one under way.
};

/// The route that fits, or why none does.
struct Match {
  const Route* route = nullptr;
  std::map<std::string, std::string> parameters;
  std::string allowed;  ///< The path exists with these methods only: 405.
};
[[nodiscard]] Match match(const std::vector<Route>& routes, std::string_view method, std::string_view path);

/// "a=1&b" to {a: 1, b: ""}; of two with one name the last counts.
[[nodiscard]] std::map<std::string, std::string> parse_query(std::string_view text);

/// Serves `socket` until the peer goes or one of the bounds is reached.
void serve(std::shared_ptr<Site> site, boost::asio::ip::tcp::socket socket);

}  // namespace sublet::control
