// Server and client over real sockets of this machine, on ports that the system picks.

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

using namespace sublet;
using namespace std::chrono_literals;
using control::HttpRequest;
using control::Responder;

namespace {

constexpr auto patience = 30s;

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
  /// Waits until a request to /hold is held.
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
    const auto echo = [this](const HttpRequest& request, const Responder& responder) {
      ++requests;
      std::string text = request.method + " " + request.path;
      for (const auto& [key, value] : request.parameters) text += " " + key + "=" + value;
      for (const auto& [key, value] : request.query) text += " ?" + key + "=" + value;
      responder.send({.body = text + " " + request.body, .content_type = "text/plain"});
    };
    const auto hold = [this](const HttpRequest&, const Responder& responder) {
      held_ = responder;
      responder.on_gone([this] { note(gone_); });
      note(holding_);
    };
    return {
        {"GET", "/echo", 0, echo},
        {"POST", "/echo", 1000, echo},
        {"GET", "/a/fixed/{c}", 0, echo},
        {"GET", "/a/{b}/{c}", 0, echo},
        {"GET", "/hold", 0, hold},
        {"GET", "/drop", 0, [](const HttpRequest&, const Responder&) {}},
        {"GET", "/throw", 0, [](const HttpRequest&, const Responder&) { throw std::runtime_error("oh"); }},
        {"GET", "/refuse", 0,
         [](const HttpRequest&, const Responder& responder) {
           responder.send(Error(Errc::busy, "not now"));
         }},
        {"GET", "/large", 0, [](const HttpRequest&, const Responder& responder) {
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
  std::optional<Responder> held_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool holding_ = false;
  bool gone_ = false;
};

FileDescriptor connect_to(std::uint16_t port) {
  FileDescriptor peer(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(peer.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  return peer;
}

void send_all(const FileDescriptor& peer, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::send(peer.get(), text.data(), text.size(), MSG_NOSIGNAL);
    if (count <= 0) return;  // The server has closed: what it said is what counts.
    text.remove_prefix(static_cast<std::size_t>(count));
  }
}

/// All that comes until the server closes; `until` ends it earlier.
std::string receive(const FileDescriptor& peer, std::string_view until = {}) {
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

std::string talk(const Server& server, std::string_view text) {
  const FileDescriptor peer = connect_to(server.port);
  send_all(peer, text);
  ::shutdown(peer.get(), SHUT_WR);
  return receive(peer);
}

Result<control::HttpAnswer> get(const Server& server, const std::string& target) {
  return control::HttpClient::create(server.url()).value()->request("GET", target, "", patience);
}

}  // namespace

TEST_CASE("a request reaches its route with all its parts") {
  Server server;
  REQUIRE(get(server, "/echo")->body == "GET /echo ");
  REQUIRE(get(server, "/a/x/y?k=v&flag")->body == "GET /a/x/y b=x c=y ?flag= ?k=v ");
  REQUIRE(get(server, "/a/fixed/y")->body == "GET /a/fixed/y c=y ");
  const auto client = control::HttpClient::create(server.url()).value();
  REQUIRE(client->request("POST", "/echo", "body", patience)->body == "POST /echo body");
  REQUIRE(client->request("POST", "/echo", "again", patience)->body == "POST /echo again");
}

TEST_CASE("what has no route is told so") {
  Server server;
  REQUIRE(get(server, "/nowhere")->status == 404);
  REQUIRE(get(server, "/a/x")->status == 404);
  REQUIRE(get(server, "/a//y")->status == 404);
  REQUIRE(get(server, "/echo/")->status == 404);
  const auto wrong =
      control::HttpClient::create(server.url()).value()->request("DELETE", "/echo", "", patience);
  REQUIRE(wrong->status == 405);
  REQUIRE(wrong->headers.at("allow") == "GET, POST");
  REQUIRE(control::body_of(wrong).error().code() == Errc::invalid_argument);
}

TEST_CASE("a handler's refusal, exception or silence becomes an error body") {
  Server server;
  const Result<std::string> refused = control::body_of(get(server, "/refuse"));
  REQUIRE(refused.error().code() == Errc::busy);
  REQUIRE(refused.error().detail() == "not now");
  REQUIRE(get(server, "/refuse")->status == 409);
  REQUIRE(control::body_of(get(server, "/throw")).error().code() == Errc::internal);
  REQUIRE(control::body_of(get(server, "/drop")).error().code() == Errc::internal);
}

TEST_CASE("a large answer arrives whole") {
  Server server;
  REQUIRE(get(server, "/large")->body.size() == 20'000'000);
}

TEST_CASE("pipelined requests are answered in order") {
  Server server;
  std::string requests;
  for (int i = 0; i < 50; ++i) requests += "GET /a/x/" + std::to_string(i) + " HTTP/1.1\r\nHost: h\r\n\r\n";
  const std::string answers = talk(server, requests);
  std::size_t at = 0;
  for (int i = 0; i < 50; ++i) {
    at = answers.find(" c=" + std::to_string(i) + " ", at);
    REQUIRE(at != std::string::npos);
  }
}

TEST_CASE("malformed requests get 400 and the server goes on") {
  Server server;
  REQUIRE_THAT(talk(server, "nonsense\r\n\r\n"), Catch::StartsWith("HTTP/1.1 400"));
  REQUIRE_THAT(talk(server, "GET /echo HTTP/1.1\r\nno colon\r\n\r\n"), Catch::StartsWith("HTTP/1.1 400"));
  REQUIRE_THAT(talk(server, "POST /echo HTTP/1.1\r\nContent-Length: x\r\n\r\n"),
               Catch::StartsWith("HTTP/1.1 400"));
  REQUIRE_THAT(
      talk(server, "POST /echo HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
      Catch::StartsWith("HTTP/1.1 400"));
  talk(server, std::string("\x16\x03\x01\0\xff", 5));
  REQUIRE(get(server, "/echo")->status == 200);
}

TEST_CASE("what exceeds a limit is refused before it is read") {
  Server server;
  REQUIRE_THAT(talk(server, "GET /echo HTTP/1.1\r\nX: " + std::string(100'000, 'x') + "\r\n\r\n"),
               Catch::StartsWith("HTTP/1.1 431"));
  REQUIRE_THAT(talk(server, "POST /echo HTTP/1.1\r\nContent-Length: 1001\r\n\r\n"),
               Catch::StartsWith("HTTP/1.1 413"));
  REQUIRE_THAT(talk(server, "GET /echo HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"),
               Catch::StartsWith("HTTP/1.1 413"));
  std::string chunks = "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 3; ++i) chunks += "190\r\n" + std::string(400, 'x') + "\r\n";
  REQUIRE_THAT(talk(server, chunks + "0\r\n\r\n"), Catch::StartsWith("HTTP/1.1 413"));
  const auto client = control::HttpClient::create(server.url()).value();
  REQUIRE(client->request("POST", "/echo", std::string(1000, 'x'), patience)->status == 200);
  REQUIRE(client->request("POST", "/echo", std::string(5'000'000, 'x'), patience)->status == 413);
  REQUIRE(server.requests == 1);
}

TEST_CASE("a client that asks first is told to go on") {
  Server server;
  const FileDescriptor peer = connect_to(server.port);
  send_all(peer, "POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  REQUIRE_THAT(receive(peer, "\r\n\r\n"), Catch::StartsWith("HTTP/1.1 100"));
  send_all(peer, "hi");
  REQUIRE_THAT(receive(peer, "hi"), Catch::StartsWith("HTTP/1.1 200"));
}

TEST_CASE("silent, slow and half-closed peers are closed by time") {
  Server server({.idle_max = 200ms, .request_max = 200ms});
  const FileDescriptor silent = connect_to(server.port);
  const FileDescriptor slow = connect_to(server.port);
  const FileDescriptor half = connect_to(server.port);
  send_all(slow, "GET /echo HTTP/1.1\r\nHo");
  send_all(half, "POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf");
  ::shutdown(half.get(), SHUT_WR);
  REQUIRE(receive(silent).empty());
  REQUIRE(receive(slow).empty());
  REQUIRE(receive(half).empty());
  const FileDescriptor body = connect_to(server.port);
  send_all(body, "POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf");
  REQUIRE(receive(body).empty());
  REQUIRE(server.requests == 0);
}

TEST_CASE("connections beyond the limit are told so, and there is room again when others go") {
  Server server({.connections_max = 2});
  std::optional<FileDescriptor> first = connect_to(server.port);
  const FileDescriptor second = connect_to(server.port);
  for (const FileDescriptor* peer : std::initializer_list<const FileDescriptor*>{&*first, &second}) {
    send_all(*peer, "GET /echo HTTP/1.1\r\n\r\n");
    REQUIRE_THAT(receive(*peer, "GET /echo"), Catch::StartsWith("HTTP/1.1 200"));
  }
  REQUIRE_THAT(receive(connect_to(server.port)), Catch::StartsWith("HTTP/1.1 503"));
  first.reset();
  const TimePoint until = SteadyClock::now() + patience;
  while (!get(server, "/echo").ok() || get(server, "/echo")->status != 200)
    REQUIRE(SteadyClock::now() < until);
}

TEST_CASE("large requests under way are bounded together") {
  Server server({.bodies_bytes_max = 1500});
  const FileDescriptor peer = connect_to(server.port);
  send_all(peer, "POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n");
  REQUIRE_THAT(receive(peer, "\r\n\r\n"), Catch::StartsWith("HTTP/1.1 100"));
  const auto client = control::HttpClient::create(server.url()).value();
  REQUIRE(client->request("POST", "/echo", std::string(600, 'x'), patience)->status == 503);
  REQUIRE(client->request("POST", "/echo", std::string(400, 'x'), patience)->status == 200);
  send_all(peer, std::string(1000, 'x'));
  REQUIRE_THAT(receive(peer, "x"), Catch::StartsWith("HTTP/1.1 200"));
  REQUIRE(client->request("POST", "/echo", std::string(600, 'x'), patience)->status == 200);
}

TEST_CASE("an answer may come later, and a peer that goes before is noticed") {
  Server server;
  {
    const FileDescriptor peer = connect_to(server.port);
    send_all(peer, "GET /hold HTTP/1.1\r\n\r\nGET /echo HTTP/1.1\r\n\r\n");
    server.wait_held();
    server.answer_held();
    const std::string answers = receive(peer, "GET /echo");
    REQUIRE(answers.find("held") < answers.find("GET /echo"));
  }
  Server other;
  {
    const FileDescriptor peer = connect_to(other.port);
    send_all(peer, "GET /hold HTTP/1.1\r\n\r\n");
    other.wait_held();
  }
  other.wait_gone();
}

TEST_CASE("a client's addresses are checked") {
  for (const char* url : {"", "http://", "http://h", "https://h:1", "http://h:0", "http://h:65536",
                          "http://h:1/x", "http://:1", "http://u@h:1", "h:1", "http://h:1x"}) {
    INFO(url);
    REQUIRE(control::HttpClient::create(url).error().code() == Errc::invalid_argument);
  }
  REQUIRE(control::HttpClient::create("http://localhost:7400/").ok());
  REQUIRE(control::HttpClient::create("http://[::1]:7400").ok());
}

TEST_CASE("a client's wait ends by time, by cancel, or when nobody listens") {
  std::optional<Server> server(std::in_place);
  auto client = control::HttpClient::create(server->url()).value();
  REQUIRE(client->request("GET", "/hold", "", 100ms).error().code() == Errc::timeout);
  REQUIRE(client->request("GET", "/echo", "", patience)->status == 200);

  Result<control::HttpAnswer> answer = Errc::internal;
  std::thread waiting([&] { answer = client->request("GET", "/hold", "", patience); });
  server->wait_held();
  client->cancel();
  waiting.join();
  REQUIRE(answer.error().code() == Errc::closed);
  REQUIRE(client->request("GET", "/echo", "", patience).error().code() == Errc::closed);

  client = control::HttpClient::create(server->url()).value();
  server.reset();
  REQUIRE(client->request("GET", "/echo", "", patience).error().code() == Errc::unavailable);
}

TEST_CASE("a kept connection that the server closed meanwhile costs no request") {
  Server server({.idle_max = 50ms});
  const auto client = control::HttpClient::create(server.url()).value();
  const FileDescriptor witness = connect_to(server.port);
  REQUIRE(client->request("POST", "/echo", "1", patience)->status == 200);
  REQUIRE(receive(witness).empty());
  const FileDescriptor later = connect_to(server.port);
  REQUIRE(receive(later).empty());  // Closed by time, and so by then is the client's connection.
  REQUIRE(client->request("POST", "/echo", "2", patience)->status == 200);
  REQUIRE(server.requests == 2);
}

TEST_CASE("a server that does not speak HTTP is told from one that is not there") {
  FileDescriptor listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  REQUIRE(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(::listen(listener.get(), 8) == 0);
  REQUIRE(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
  // Answers once, then closes; a repeatable request on a fresh connection is not sent again.
  std::thread server([&] {
    for (const char* text : {"SSH-2.0-OpenSSH\r\n\r\n", ""}) {
      const FileDescriptor peer(::accept(listener.get(), nullptr, nullptr));
      char bytes[1024];
      static_cast<void>(::recv(peer.get(), bytes, sizeof(bytes), 0));
      send_all(peer, text);
    }
  });
  const auto client =
      control::HttpClient::create("http://127.0.0.1:" + std::to_string(ntohs(address.sin_port))).value();
  const Result<control::HttpAnswer> garbage = client->request("GET", "/", "", patience);
  const Result<control::HttpAnswer> nothing = client->request("GET", "/", "", patience);
  server.join();
  REQUIRE(garbage.error().code() == Errc::protocol_error);
  REQUIRE(nothing.error().code() == Errc::unavailable);
}

TEST_CASE("an address that cannot be listened on is told with its reason") {
  control::EventLoop loop;
  REQUIRE(control::HttpServer::listen(loop, "localhost", 0, {}).error().code() == Errc::invalid_argument);
  const auto first = control::HttpServer::listen(loop, "127.0.0.1", 0, {}).value();
  const auto second = control::HttpServer::listen(loop, "127.0.0.1", first->port(), {});
  REQUIRE(second.error().code() == Errc::io_error);
  REQUIRE_THAT(second.error().detail(), Catch::Contains("in use"));
}
