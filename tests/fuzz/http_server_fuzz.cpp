// Bytes of a peer through the real server's connection, in pieces of any size, with answers now or later.

#include <sys/socket.h>

#include <array>
#include <optional>

#include "runtime/base/file_descriptor.hpp"
#include "runtime/control/event_loop_impl.hpp"
#include "runtime/control/http_connection.hpp"
#include "runtime/control/http_message.hpp"
#include "tests/fuzz/input.hpp"

using namespace sublet;
using control::HttpRequest;
using control::Responder;

namespace {

constexpr std::size_t header_bytes_max = 512;  // So that a short input reaches the limit.
constexpr std::size_t pieces_max = 64;

/// A server without its listener, on a loop that is turned by hand.
struct Server {
  Server() {
    const auto echo = [this](const HttpRequest& request, const Responder& responder) {
      ++requests;
      std::string text = request.path;
      for (const auto& [name, value] : request.parameters) text += name + value;
      for (const auto& [name, value] : request.query) text += name + value;
      for (const auto& [name, value] : request.headers) text += name + value;
      responder.send({.body = text + request.body});
    };
    const auto wait = [this](const HttpRequest&, const Responder& responder) {
      ++requests;
      held = responder;
    };
    const auto watch = [this, wait](const HttpRequest& request, const Responder& responder) {
      responder.on_gone([this] { held.reset(); });
      wait(request, responder);
    };
    site = std::make_shared<control::Site>(
        loop.impl().io,
        std::vector<control::Route>{{"GET", "/e", 0, echo},
                                    {"POST", "/e", 64, echo},
                                    {"PUT", "/a/{b}/{c}", std::size_t{8} << 20, echo},
                                    {"GET", "/w", 0, wait},
                                    {"GET", "/g", 0, watch},
                                    {"GET", "/d", 0, [this](const auto&, const auto&) { ++requests; }}},
        control::ServerLimits{.header_bytes_max = header_bytes_max}, nullptr);
  }

  void turn() {
    loop.impl().io.restart();
    loop.impl().io.poll();
  }

  control::EventLoop loop;
  std::shared_ptr<control::Site> site;
  std::optional<Responder> held;
  std::size_t requests = 0;
};

void send_all(Server& server, const FileDescriptor& peer, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(peer.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN) return;  // Refused and closed.
    if (sent < 0 && server.held) std::exchange(server.held, std::nullopt)->send({.body = "late"});
    if (sent > 0) bytes.remove_prefix(static_cast<std::size_t>(sent));
    server.turn();
  }
}

std::string receive_all(const FileDescriptor& peer) {
  std::string text;
  std::array<char, 65536> bytes;
  for (ssize_t got = 0; (got = ::recv(peer.get(), bytes.data(), bytes.size(), MSG_DONTWAIT)) > 0;)
    text.append(bytes.data(), static_cast<std::size_t>(got));
  return text;
}

/// Whole answers one after the other; returns how many were to requests that reached a route.
std::size_t count_answers(std::string_view text) {
  std::size_t count = 0;
  while (!text.empty()) {
    constexpr std::string_view go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    if (text.starts_with(go_on)) {
      text.remove_prefix(go_on.size());
      continue;
    }
    control::HttpMessage<false> answer(limits::http_header_bytes_max);
    answer.eager(true);
    boost::system::error_code error;
    const std::size_t taken = answer.put(boost::asio::const_buffer(text.data(), text.size()), error);
    SUBLET_ASSERT(answer.is_header_done());
    // Only the last one may end early: HEAD is refused with the length of what a GET would be told.
    SUBLET_ASSERT(answer.is_done() || answer.headers.get("connection") == "close");
    text.remove_prefix(taken);
    ++count;
  }
  return count;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Server server;
  fuzz::Input input(data, size);
  const std::size_t wanted = input.number();  // 0: all at once.
  const std::size_t piece = wanted == 0 ? size : std::max(wanted, size / pieces_max + 1);
  const bool half_close = input.number() % 2 == 0;
  std::array<int, 2> ends{};
  SUBLET_ASSERT(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) == 0);
  std::optional<FileDescriptor> peer(ends[0]);
  server.requests = 0;
  auto& io = server.loop.impl().io;
  control::serve(server.site, {io, boost::asio::ip::tcp::v4(), ends[1]});
  while (!input.empty()) send_all(server, *peer, input.take(piece));
  if (half_close) ::shutdown(peer->get(), SHUT_WR);
  for (int turns = 0; turns < 4; ++turns) {  // As one that waits is answered the next one may wait.
    server.turn();
    if (server.held) std::exchange(server.held, std::nullopt)->send({.body = "late"});
  }
  const std::size_t answers = count_answers(receive_all(*peer));
  SUBLET_ASSERT(answers <= server.requests + 1);  // One refusal, and that is the end.
  peer.reset();
  for (int turns = 0; server.site->connections > 0; ++turns) {
    SUBLET_ASSERT(turns < 10'000);
    server.held.reset();
    server.turn();
  }
  SUBLET_ASSERT(server.site->bodies_bytes == 0);
  return 0;
}
