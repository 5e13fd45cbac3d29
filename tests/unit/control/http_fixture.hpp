#pragma once

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "runtime/base/clock.hpp"
#include "runtime/base/file_descriptor.hpp"
#include "runtime/control/event_loop.hpp"
#include "runtime/control/http_client.hpp"
#include "runtime/control/http_server.hpp"
#include "tests/catch.hpp"

/// A server over real sockets of this machine, on a port that the system picks, and peers that speak bytes.
namespace sublet::test {

inline constexpr auto patience = std::chrono::seconds(30);

/// A server on a thread of its own, with routes that show what arrives.
class Server {
 public:
  explicit Server(control::ServerLimits bounds = {}) {
    server_ = control::HttpServer::listen(loop_, "127.0.0.1", 0, routes(), bounds).value();
    port = server_->port();
    thread_ = std::thread([this] { loop_.run(); });
  }
  ~Server() {
    loop_.stop();
    thread_.join();
    held_.reset();
  }

  [[nodiscard]] std::string url() const { return "http://127.0.0.1:" + std::to_string(port); }
  /// Waits until a request to /hold (which notices a peer that goes) or /wait (which does not) is held.
  void wait_held() {
    std::unique_lock lock(mutex_);
    REQUIRE(changed_.wait_for(lock, patience, [&] { return holding_; }));
  }
  void wait_gone() {
    std::unique_lock lock(mutex_);
    REQUIRE(changed_.wait_for(lock, patience, [&] { return gone_; }));
  }
  void answer_held() {
    loop_.post([this] { held_->send({.body = "held"}); });
  }

  std::uint16_t port = 0;
  std::atomic<int> requests = 0;

 private:
  std::vector<control::Route> routes() {
    const auto echo = [this](const control::HttpRequest& request, const control::Responder& responder) {
      ++requests;
      std::string text = request.method + " " + request.path;
      for (const auto& [key, value] : request.parameters) text += " " + key + "=" + value;
      for (const auto& [key, value] : request.query) text += " ?" + key + "=" + value;
      responder.send({.body = text + " " + request.body, .content_type = "text/plain"});
    };
    const auto wait = [this](const control::HttpRequest&, const control::Responder& responder) {
      held_ = responder;
      note(holding_);
    };
    const auto hold = [this, wait](const control::HttpRequest& request, const control::Responder& responder) {
      responder.on_gone([this] { note(gone_); });
      wait(request, responder);
    };
    return {{"GET", "/echo", 0, echo},
            {"POST", "/echo", 1000, echo},
            {"POST", "/wait", 1000, wait},
            {"PUT", "/upload", 2 * limits::json_body_bytes_max, echo},
            {"GET", "/a/fixed/{c}", 0, echo},
            {"GET", "/a/{b}/{c}", 0, echo},
            {"GET", "/hold", 0, hold},
            {"GET", "/wait", 0, wait},
            {"GET", "/drop", 0, [](const control::HttpRequest&, const control::Responder&) {}},
            {"GET", "/throw", 0,
             [](const control::HttpRequest&, const control::Responder&) { throw std::runtime_error("oh"); }},
            {"GET", "/refuse", 0,
             [](const control::HttpRequest&, const control::Responder& responder) {
               responder.send(Error(Errc::busy, "not now"));
             }},
            {"GET", "/large", 0, [](const control::HttpRequest&, const control::Responder& responder) {
               responder.send({.shared_body = std::make_shared<const std::string>(20'000'000, 'z')});
             }}};
  }

  void note(bool& what) {
    const std::lock_guard lock(mutex_);
    what = true;
    changed_.notify_all();
  }

  control::EventLoop loop_;
  std::unique_ptr<control::HttpServer> server_;
  std::thread thread_;
  std::optional<control::Responder> held_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool holding_ = false;
  bool gone_ = false;
};

inline FileDescriptor connect_to(std::uint16_t port) {
  FileDescriptor peer(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(peer.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  return peer;
}

inline void send_all(const FileDescriptor& peer, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::send(peer.get(), text.data(), text.size(), MSG_NOSIGNAL);
    if (count <= 0) return;  // The server has closed: what it said is what counts.
    text.remove_prefix(static_cast<std::size_t>(count));
  }
}

/// All that comes until the server closes; `until` ends it earlier.
inline std::string receive(const FileDescriptor& peer, std::string_view until = {}) {
  std::string text;
  char bytes[4096];
  while (until.empty() || text.find(until) == std::string::npos) {
    pollfd ready{peer.get(), POLLIN, 0};
    REQUIRE(::poll(&ready, 1, static_cast<int>(std::chrono::milliseconds(patience).count())) == 1);
    const ssize_t count = ::recv(peer.get(), bytes, sizeof(bytes), 0);
    if (count <= 0) break;
    text.append(bytes, static_cast<std::size_t>(count));
  }
  return text;
}

inline std::string talk(const Server& server, std::string_view text) {
  const FileDescriptor peer = connect_to(server.port);
  send_all(peer, text);
  ::shutdown(peer.get(), SHUT_WR);
  return receive(peer);
}

inline Result<control::HttpAnswer> get(const Server& server, const std::string& target) {
  return control::HttpClient::create(server.url()).value()->request("GET", target, "", patience);
}

}  // namespace sublet::test
