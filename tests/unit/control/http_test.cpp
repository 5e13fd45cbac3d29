// Server and client over real sockets of this machine, on ports that the system picks.

#include "runtime/control/http_routes.hpp"
#include "tests/unit/control/http_fixture.hpp"

using namespace sublet;
using namespace sublet::test;
using namespace std::chrono_literals;

TEST_CASE("a request reaches its route with all its parts") {
  Server server;
  REQUIRE(get(server, "/echo")->body == "GET /echo ");
  REQUIRE(get(server, "/a/x/y?k=v&flag")->body == "GET /a/x/y b=x c=y ?k=v ?flag= ");
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

TEST_CASE("with all connections taken the one idle longest makes room") {
  Server server({.connections_max = 2});
  const FileDescriptor first = connect_to(server.port);
  const FileDescriptor second = connect_to(server.port);
  for (const FileDescriptor* peer : {&first, &second}) {
    send_all(*peer, "GET /echo HTTP/1.1\r\n\r\n");
    REQUIRE_THAT(receive(*peer, "GET /echo"), Catch::StartsWith("HTTP/1.1 200"));
  }
  REQUIRE(get(server, "/echo")->status == 200);
  REQUIRE(receive(first).empty());
  send_all(second, "GET /echo HTTP/1.1\r\n\r\n");
  REQUIRE_THAT(receive(second, "GET /echo"), Catch::StartsWith("HTTP/1.1 200"));
}

TEST_CASE("with all connections busy a new one is told so, and there is room again when others go") {
  Server server({.connections_max = 1});
  std::optional<FileDescriptor> first = connect_to(server.port);
  send_all(*first, "GET /wait HTTP/1.1\r\n\r\n");
  server.wait_held();
  const std::string refusal = receive(connect_to(server.port));
  REQUIRE_THAT(refusal, Catch::StartsWith("HTTP/1.1 503") && Catch::Contains("Retry-After: 1\r\n") &&
                            Catch::Contains("\"retry_after_ms\":1000"));
  server.answer_held();
  REQUIRE_THAT(receive(*first, "held"), Catch::StartsWith("HTTP/1.1 200"));
  REQUIRE(get(server, "/echo")->status == 200);
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

TEST_CASE("uploads leave an eighth of the room to small requests") {
  constexpr std::size_t room = 8000;
  Server server({.bodies_bytes_max = room});
  const auto client = control::HttpClient::create(server.url()).value();
  REQUIRE(client->request("PUT", "/upload", std::string(room / 8 * 7 + 1, 'x'), patience)->status == 503);
  const FileDescriptor peer = connect_to(server.port);
  send_all(peer, "PUT /upload HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: " +
                     std::to_string(room / 8 * 7) + "\r\n\r\n");
  REQUIRE_THAT(receive(peer, "\r\n\r\n"), Catch::StartsWith("HTTP/1.1 100"));
  REQUIRE(client->request("PUT", "/upload", "x", patience)->status == 503);
  REQUIRE(client->request("POST", "/echo", std::string(room / 8, 'x'), patience)->status == 200);
  send_all(peer, std::string(room / 8 * 7, 'x'));
  REQUIRE_THAT(receive(peer, "x"), Catch::StartsWith("HTTP/1.1 200"));
  REQUIRE(client->request("PUT", "/upload", "x", patience)->status == 200);
}

TEST_CASE("a body in chunks takes as much of the room as it is large, once it is there") {
  Server server({.bodies_bytes_max = 1500});
  const FileDescriptor peer = connect_to(server.port);
  send_all(peer, "POST /wait HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
  REQUIRE_THAT(receive(peer, "\r\n\r\n"), Catch::StartsWith("HTTP/1.1 100"));
  const auto client = control::HttpClient::create(server.url()).value();
  REQUIRE(client->request("POST", "/echo", std::string(500, 'x'), patience)->status == 200);
  REQUIRE(client->request("POST", "/echo", std::string(501, 'x'), patience)->status == 503);
  send_all(peer, "1\r\nx\r\n0\r\n\r\n");
  server.wait_held();
  REQUIRE(client->request("POST", "/echo", std::string(1000, 'x'), patience)->status == 200);
  server.answer_held();
  REQUIRE_THAT(receive(peer, "held"), Catch::StartsWith("HTTP/1.1 200"));
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

TEST_CASE("a query's escapes are taken for what they mean, and wrong ones are refused") {
  const control::Pairs query =
      control::parse_query("function=probe%401&a%20b=%e2%82%ac&plain=1&empty").value();
  REQUIRE(query.at("function") == "probe@1");
  REQUIRE(query.at("a b") == "\xE2\x82\xAC");
  REQUIRE((query.at("plain") == "1" && query.at("empty").empty()));
  for (const char* wrong : {"a=%", "a=%4", "a=%4g", "a=%zz", "a=%00", "%=1", "a=%-1", "a=%+1", "a=% 1"}) {
    INFO(wrong);
    REQUIRE(control::parse_query(wrong).error().code() == Errc::invalid_argument);
  }
}
