// Peers that are slow, silent, half gone, in a hurry, or wrong on purpose, over real sockets.

#include <sys/resource.h>

#include "runtime/control/api.hpp"
#include "tests/unit/control/http_fixture.hpp"

using namespace sublet;
using namespace sublet::test;
using namespace std::chrono_literals;

namespace {

/// Sends `text` byte by byte, again and again, until the server closes; false when it never does.
bool trickle_until_closed(const FileDescriptor& peer, std::string_view text) {
  const TimePoint until = SteadyClock::now() + patience;
  for (std::size_t i = 0; SteadyClock::now() < until; ++i) {
    send_all(peer, text.substr(i % text.size(), 1));
    pollfd ready{peer.get(), POLLIN, 0};
    char byte = 0;
    if (::poll(&ready, 1, 5) == 1 && ::recv(peer.get(), &byte, 1, 0) <= 0) return true;
  }
  return false;
}

std::string numbered(const char* name, int number) {
  return std::string(name).append(std::to_string(number));
}

std::size_t raise_descriptor_limit() {
  rlimit bound{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &bound) == 0);
  bound.rlim_cur = bound.rlim_max;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &bound) == 0);
  return static_cast<std::size_t>(bound.rlim_cur);
}

/// Answers one connection after the other with one of `answers`, whatever is asked, and closes it.
class Scripted {
 public:
  explicit Scripted(std::vector<std::string> answers) : answers_(std::move(answers)) {
    listener_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    REQUIRE(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
    REQUIRE(::listen(listener_.get(), 8) == 0);
    REQUIRE(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
    url = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    thread_ = std::thread([this] {
      for (const std::string& answer : answers_) {
        const FileDescriptor peer(::accept(listener_.get(), nullptr, nullptr));
        char bytes[4096];
        static_cast<void>(::recv(peer.get(), bytes, sizeof(bytes), 0));
        send_all(peer, answer);
        ::shutdown(peer.get(), SHUT_WR);
        while (::recv(peer.get(), bytes, sizeof(bytes), 0) > 0) continue;
      }
    });
  }
  ~Scripted() { thread_.join(); }

  std::string url;

 private:
  std::vector<std::string> answers_;
  FileDescriptor listener_;
  std::thread thread_;
};

}  // namespace

TEST_CASE("a request that comes byte by byte is a request") {
  Server server;
  const FileDescriptor peer = connect_to(server.port);
  const std::string request = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nhello world";
  for (int i = 0; i < 2; ++i) {
    for (const char& byte : request) send_all(peer, {&byte, 1});
    REQUIRE_THAT(receive(peer, "hello world"), Catch::StartsWith("HTTP/1.1 200"));
  }
  for (const char& byte : std::string("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                                      "5;name=value\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n"))
    send_all(peer, {&byte, 1});
  REQUIRE_THAT(receive(peer, "hello!"), Catch::StartsWith("HTTP/1.1 200"));
}

TEST_CASE("bytes that trickle do not lengthen a request's time") {
  Server server({.request_max = 300ms});
  const FileDescriptor header = connect_to(server.port);
  send_all(header, "GET /echo HTTP/1.1\r\nX: ");
  REQUIRE(trickle_until_closed(header, "x"));
  const FileDescriptor lines = connect_to(server.port);
  send_all(lines, "GET /echo HTTP/1.1\r\n");
  REQUIRE(trickle_until_closed(lines, "a: b\r\n"));
  const FileDescriptor body = connect_to(server.port);
  send_all(body, "POST /echo HTTP/1.1\r\nContent-Length: 1000\r\n\r\n");
  REQUIRE(trickle_until_closed(body, "x"));
  const FileDescriptor chunks = connect_to(server.port);
  send_all(chunks, "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
  REQUIRE(trickle_until_closed(chunks, "1\r\nx\r\n"));
  REQUIRE(server.requests == 0);
}

TEST_CASE("a peer that reads nothing of its answer is closed by time") {
  Server server({.request_max = 300ms});
  const FileDescriptor peer = connect_to(server.port);
  send_all(peer, "GET /large HTTP/1.1\r\n\r\n");
  // The next peer is served and closed by the same time, later: by then the first one is closed.
  const FileDescriptor witness = connect_to(server.port);
  REQUIRE(trickle_until_closed(witness, "x"));
  REQUIRE(receive(peer).size() < 20'000'000);
}

TEST_CASE("a half-closed peer gets its answer, and one whose going matters is told") {
  Server server;
  const FileDescriptor patient = connect_to(server.port);
  send_all(patient, "GET /wait HTTP/1.1\r\n\r\n");
  ::shutdown(patient.get(), SHUT_WR);
  server.wait_held();
  server.answer_held();
  REQUIRE_THAT(receive(patient), Catch::StartsWith("HTTP/1.1 200") && Catch::EndsWith("held"));

  Server other;
  const FileDescriptor watched = connect_to(other.port);
  send_all(watched, "GET /hold HTTP/1.1\r\n\r\n");
  ::shutdown(watched.get(), SHUT_WR);
  REQUIRE_THAT(receive(watched), Catch::StartsWith("HTTP/1.1 410") && Catch::Contains("keep it open"));
  other.wait_gone();
}

TEST_CASE("more pipelined requests than fit are answered in order, also around one that waits") {
  Server server;
  constexpr int count = 3000;
  std::string requests = "GET /wait HTTP/1.1\r\n\r\n";
  for (int i = 0; i < count; ++i) requests += "GET /a/x/" + std::to_string(i) + " HTTP/1.1\r\n\r\n";
  const FileDescriptor peer = connect_to(server.port);
  std::thread sending([&] {
    send_all(peer, requests);
    ::shutdown(peer.get(), SHUT_WR);
  });
  server.wait_held();
  REQUIRE(server.requests == 0);
  server.answer_held();
  const std::string answers = receive(peer);
  sending.join();
  std::size_t at = answers.find("held");
  for (int i = 0; i < count && at != std::string::npos; ++i)
    at = answers.find(" c=" + std::to_string(i) + " ", at);
  REQUIRE(at != std::string::npos);
}

TEST_CASE("what is no request of HTTP/1 gets 400 and an end") {
  using namespace std::string_literals;
  const std::string line = "POST /echo HTTP/1.1\r\n";
  const std::vector<std::string> wrong{
      "\r\n\r\n",
      "GET\r\n\r\n",
      "GET /echo\r\n\r\n",
      "GET  /echo HTTP/1.1\r\n\r\n",
      "GET /echo HTTP/1.1 \r\n\r\n",
      "GET /echo HTTP/1.2\r\n\r\n",
      "GET /echo HTTP/9.9\r\n\r\n",
      "GET /ec\0ho HTTP/1.1\r\n\r\n"s,
      "GET /echo HTTP/1.1\n\n",
      "G(T /echo HTTP/1.1\r\n\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a hello of TLS \r\n\r\n"s,
      "GET /echo HTTP/1.1\r\nBad Name: x\r\n\r\n",
      "GET /echo HTTP/1.1\r\nName : x\r\n\r\n",
      "GET /echo HTTP/1.1\r\n: x\r\n\r\n",
      "GET /echo HTTP/1.1\r\nX: a\0b\r\n\r\n"s,
      "GET /echo HTTP/1.1\r\nX: a\rb\r\n\r\n",
      "GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
      line + "Content-Length: -1\r\n\r\n",
      line + "Content-Length: +1\r\n\r\nx",
      line + "Content-Length: 1 1\r\n\r\nx",
      line + "Content-Length: 1, 1\r\n\r\nx",
      line + "Content-Length: 0x1\r\n\r\nx",
      line + "Content-Length: \r\n\r\n",
      line + "Content-Length: 99999999999999999999999\r\n\r\n",
      line + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
      line + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
      line + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
      line + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      line + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      line + "Transfer-Encoding: gzip\r\n\r\n",
      line + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
      line + "Transfer-Encoding: identity\r\n\r\n",
      "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      line + "Transfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
      line + "Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
      line + "Transfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n0\r\n\r\n",
      line + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx\r\n0\r\n\r\n",
      line + "Transfer-Encoding: chunked\r\n\r\n1;" + std::string(20'000, 'e') + "\r\nx\r\n0\r\n\r\n",
      line + "Connection: clo se\r\n\r\n",
  };
  Server server;
  for (const std::string& text : wrong) {
    const std::string answer = talk(server, text + "GET /echo HTTP/1.1\r\n\r\n");
    INFO(text);
    CHECK_THAT(answer, Catch::StartsWith("HTTP/1.1 400"));
    const std::size_t body = answer.find("\r\n\r\n");
    REQUIRE(body != std::string::npos);
    CHECK(api::from_json<api::ErrorBody>(std::string_view(answer).substr(body + 4)).ok());
  }
  REQUIRE(server.requests == 0);
  REQUIRE(get(server, "/echo")->status == 200);
}

TEST_CASE("a huge number is a limit exceeded, not a number cut short") {
  Server server;
  REQUIRE_THAT(talk(server, "POST /echo HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n"),
               Catch::StartsWith("HTTP/1.1 413"));
  REQUIRE_THAT(talk(server, "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"),
               Catch::StartsWith("HTTP/1.1 413"));
}

TEST_CASE("a header is bounded as a whole, however it comes") {
  Server server;
  std::string few_long = "GET /echo HTTP/1.1\r\n";
  for (int i = 0; i < 30; ++i)
    few_long.append(numbered("N", i)).append(": ").append(1000, 'x').append("\r\n");
  const FileDescriptor peer = connect_to(server.port);
  for (std::size_t at = 0; at < few_long.size(); at += 700) send_all(peer, few_long.substr(at, 700));
  REQUIRE_THAT(receive(peer), Catch::StartsWith("HTTP/1.1 431"));
  std::string many = "GET /echo HTTP/1.1\r\n";
  for (int i = 0; i < 100; ++i) many.append(numbered("N", i)).append(": x\r\n");
  REQUIRE_THAT(talk(server, many + "\r\n"), Catch::StartsWith("HTTP/1.1 431"));
  std::string query;
  for (int i = 0; i < 100; ++i) query += numbered("&p", i);
  REQUIRE_THAT(talk(server, "GET /echo?" + query + " HTTP/1.1\r\n\r\n"), Catch::StartsWith("HTTP/1.1 413"));
  REQUIRE_THAT(talk(server, "GET /echo HTTP/1.1\r\nX: " + std::string(15'000, 'x') + "\r\n\r\n"),
               Catch::StartsWith("HTTP/1.1 200"));
  REQUIRE(server.requests == 1);
}

TEST_CASE("what else HTTP/1 has is served or refused as it says") {
  Server server;
  REQUIRE_THAT(talk(server, "GET http://h:1/a/x/y?k=v HTTP/1.1\r\n\r\n"), Catch::Contains("b=x c=y ?k=v"));
  REQUIRE_THAT(talk(server, "GET http://h HTTP/1.1\r\n\r\n"), Catch::StartsWith("HTTP/1.1 404"));
  for (const char* target : {"*", "//", "h:1", "/%2e%2e/echo", "/echo;x"}) {
    INFO(target);
    REQUIRE_THAT(talk(server, "GET " + std::string(target) + " HTTP/1.1\r\n\r\n"),
                 Catch::StartsWith("HTTP/1.1 404"));
  }
  const FileDescriptor old = connect_to(server.port);
  send_all(old, "GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  REQUIRE_THAT(receive(old), Catch::StartsWith("HTTP/1.1 200") && Catch::Contains("Connection: close"));
  const std::string head = talk(server, "HEAD /echo HTTP/1.1\r\n\r\n");
  REQUIRE_THAT(head, Catch::StartsWith("HTTP/1.1 405") && Catch::EndsWith("\r\n\r\n"));
  REQUIRE_THAT(talk(server, "POST /echo HTTP/1.1\r\nExpect: cake\r\nContent-Length: 1\r\n\r\nx"),
               Catch::StartsWith("HTTP/1.1 417"));
  // Trailers are nobody's headers.
  REQUIRE_THAT(
      talk(server,
           "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nHost: a\r\nHost: "
           "b\r\n\r\n"),
      Catch::StartsWith("HTTP/1.1 200"));
}

TEST_CASE("thousands of idle connections leave the server answering") {
  const std::size_t count = std::min<std::size_t>(4000, raise_descriptor_limit() / 2 - 100);
  Server server;
  std::vector<FileDescriptor> idle;
  for (std::size_t i = 0; i < count; ++i) idle.push_back(connect_to(server.port));
  for (const std::size_t i : {std::size_t{0}, count / 2, count - 1}) {
    send_all(idle[i], "GET /echo HTTP/1.1\r\n\r\n");
    REQUIRE_THAT(receive(idle[i], "GET /echo"), Catch::StartsWith("HTTP/1.1 200"));
  }
  REQUIRE(get(server, "/echo")->status == 200);
}

TEST_CASE("a refusal tells when to come back, in its body and its header") {
  const control::HttpReply reply = control::reply_of(Error(Errc::no_capacity, "full"), 1001ms);
  REQUIRE(reply.status == 503);
  REQUIRE(reply.headers.at("Retry-After") == "2");
  REQUIRE(api::from_json<api::ErrorBody>(reply.body)->retry_after_ms == 1001);
  REQUIRE_FALSE(control::reply_of(Errc::no_capacity).headers.contains("Retry-After"));
}

TEST_CASE("a client takes what HTTP allows and nothing else") {
  const std::string ok = "HTTP/1.1 200 OK\r\n";
  const auto ask = [](const std::string& text) {
    const Scripted server({text});
    return control::HttpClient::create(server.url).value()->request("POST", "/", "body", patience);
  };
  REQUIRE(ask(ok + "Content-Length: 2\r\n\r\nhi")->body == "hi");
  REQUIRE(ask(ok + "Content-Length: 0\r\n\r\n")->body.empty());
  REQUIRE(ask(ok + "\r\nuntil the end")->body == "until the end");
  REQUIRE(ask(ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")->body == "hi");
  REQUIRE(ask("HTTP/1.1 103 Early Hints\r\n\r\n" + ok + "X-Y: z\r\nContent-Length: 2\r\n\r\nhi")
              ->headers.at("x-y") == "z");
  REQUIRE(ask("HTTP/1.1 204 No Content\r\n\r\n")->status == 204);
  const std::string large(1'000'000, 'z');
  REQUIRE(ask(ok + "Content-Length: 1000000\r\n\r\n" + large)->body == large);
  const std::vector<std::pair<std::string, Errc>> wrong{
      {"", Errc::unavailable},
      {ok, Errc::unavailable},
      {ok + "Content-Length: 3\r\n\r\nhi", Errc::unavailable},
      {"SSH-2.0\r\n\r\n", Errc::protocol_error},
      {ok + "Content-Length: x\r\n\r\n", Errc::protocol_error},
      {ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nhi", Errc::protocol_error},
      {ok + "Transfer-Encoding: gzip\r\n\r\n", Errc::protocol_error},
      {ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", Errc::protocol_error},
      {ok + "X: " + std::string(40'000, 'x') + "\r\n\r\n", Errc::too_large},
      {ok + "Content-Length: 99999999999\r\n\r\n", Errc::too_large},
  };
  for (const auto& [text, code] : wrong) {
    INFO(text.substr(0, 80));
    CHECK(ask(text).error().code() == code);
  }
  std::string never_final;
  for (int i = 0; i < 20; ++i) never_final += "HTTP/1.1 100 Continue\r\n\r\n";
  REQUIRE(ask(never_final + ok + "Content-Length: 0\r\n\r\n").error().code() == Errc::protocol_error);
}
