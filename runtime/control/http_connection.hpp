#pragma once

// Private to this layer's .cpp files: it names Boost.

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/intrusive/list.hpp>
#include <memory>

#include "runtime/base/clock.hpp"
#include "runtime/control/http_routes.hpp"
#include "runtime/control/http_server.hpp"

namespace sublet::control {

/// A connection that ends at `deadline` unless something happens before. Leaves its list when destroyed.
class Bounded
    : public boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
 public:
  /// Closes the connection; it goes when its handlers have.
  virtual void expire() noexcept = 0;
  virtual ~Bounded() = default;

  TimePoint deadline;
};

/// Connections that all have the same time, so that the order of arrival is that of the deadlines, and
/// neither a request nor its end costs a timer of its own.
class BoundedList {
 public:
  explicit BoundedList(std::chrono::milliseconds time) noexcept : time_(time) {}

  void restart(Bounded& connection, TimePoint now) noexcept {
    connection.unlink();
    connection.deadline = now + time_;
    list_.push_back(connection);
  }
  void expire_due(TimePoint now) noexcept {
    while (!list_.empty() && list_.front().deadline <= now) expire_first();
  }
  /// False when there is none.
  bool expire_first() noexcept {
    if (list_.empty()) return false;
    Bounded& first = list_.front();
    first.unlink();
    first.expire();
    return true;
  }

 private:
  std::chrono::milliseconds time_;
  boost::intrusive::list<Bounded, boost::intrusive::constant_time_size<false>> list_;
};

/// What the connections of one server share; lives as long as the last of them.
class Site : public std::enable_shared_from_this<Site> {
 public:
  Site(boost::asio::io_context& io, std::vector<Route> table, ServerLimits limits,
       HttpServer::Observer observe);

  /// Starts to close what is past its time.
  void watch();
  /// No request after those under way.
  void close() noexcept;
  /// Closes the connection that is idle longest. False when none is.
  bool make_room() noexcept { return lingering.expire_first() || idle.expire_first(); }

  RouteTable routes;
  ServerLimits bounds;
  HttpServer::Observer observer;
  BoundedList idle;       ///< Between requests.
  BoundedList busy;       ///< Reading a request or writing an answer.
  BoundedList lingering;  ///< Refused, until the peer has read why.
  std::size_t connections = 0;
  std::size_t bodies_bytes = 0;  ///< Promised or held by requests under way.
  bool closing = false;
  std::string scratch;  ///< For the answer being sent: most leave at once, and then nothing is allocated.

 private:
  boost::asio::steady_timer timer_;
};

/// Serves `socket` until the peer goes or one of the bounds is reached.
void serve(const std::shared_ptr<Site>& site, boost::asio::ip::tcp::socket socket);

/// The answer as it crosses the wire, without the body.
void append_head(std::string& out, const HttpReply& reply, std::size_t body_bytes, bool keep_alive);

}  // namespace sublet::control
