#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <thread>

#include "runtime/transport/gate/gate.hpp"
#include "runtime/wire/handshake.hpp"
#include "tests/conformance/harness.hpp"

using namespace conformance;

namespace {

gate::Address parse(const std::string& address) {
  return (address.starts_with('/') ? gate::parse_unix(address) : gate::parse_inet(address)).value();
}

/// A foreign client: a plain socket.
FileDescriptor dial(const std::string& address) {
  const gate::Address peer = parse(address);
  FileDescriptor socket(::socket(peer.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::connect(socket.get(), peer.get(), peer.length) == 0);
  return socket;
}

void say(const FileDescriptor& socket, std::span<const std::byte> bytes) {
  (void)::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
}

/// The other side ends the connection within the limit, without a word.
bool is_dropped(const FileDescriptor& socket, std::chrono::milliseconds limit) {
  pollfd event{socket.get(), POLLIN, 0};
  if (::poll(&event, 1, static_cast<int>(limit.count())) != 1) return false;
  std::array<char, 64> buffer{};
  return ::recv(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT) <= 0;
}

std::vector<std::byte> frame(std::uint16_t type, std::uint16_t length, std::size_t body,
                             std::uint32_t magic = gate::frame_magic) {
  const gate::FrameHeader header{magic, type, length};
  const auto front = wire::bytes_of(header);
  std::vector<std::byte> bytes(front.begin(), front.end());
  bytes.resize(bytes.size() + body);
  return bytes;
}

struct Hostile {
  const char* name;
  std::vector<std::byte> bytes;
  bool at_once;  ///< Told by its bytes; else by its silence.
};

std::vector<Hostile> hostile_peers() {
  std::vector<std::byte> garbage(4096);
  for (std::size_t i = 0; i < garbage.size(); ++i) garbage[i] = pattern(i, 99);
  std::string http = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  const auto text = std::as_bytes(std::span(http.data(), http.size()));
  // libfabric's own connect header: type connreq, version, private data announced but never sent.
  std::vector<std::byte> libfabric(16);
  libfabric[0] = std::byte{1};
  libfabric[1] = std::byte{3};
  libfabric[3] = std::byte{32};
  std::vector<std::byte> lying = frame(1, 40, 40);  // A hello whose parts do not add up.
  lying[sizeof(gate::FrameHeader)] = std::byte{200};
  return {
      {"silence", {}, false},
      {"half a header", {garbage.begin(), garbage.begin()}, false},
      {"half a frame", frame(1, 100, 10), false},
      {"garbage", garbage, true},
      {"http", {text.begin(), text.end()}, true},
      {"libfabric", libfabric, true},
      {"foreign magic", frame(1, 8, 8, 0x12345678), true},
      {"a long frame", frame(1, 60'000, 0), true},
      {"a ping instead of a hello", frame(4, 0, 0), true},
      {"an unknown frame", frame(77, 0, 0), true},
      {"a lying hello", lying, true},
  };
}

}  // namespace

TEST_CASE("silent and foreign peers are dropped and keep nobody out") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  if (excluded("gate", backend)) return;
  const PeerProcess peer(backend, "quick");
  std::vector<FileDescriptor> sockets;
  const std::vector<Hostile> all = hostile_peers();
  for (const Hostile& hostile : all) {
    sockets.push_back(dial(peer.address()));
    say(sockets.back(), hostile.bytes);
  }
  Side side(backend, quick);
  side.connect(peer.address());  // Among them.
  side.write(0, 8, pack(Kind::echo, 0, 1));
  REQUIRE(side.wait().size() == 1);
  for (std::size_t i = 0; i < all.size(); ++i) {
    CAPTURE(all[i].name);
    REQUIRE(is_dropped(sockets[i], quick.handshake_max + 5s));
    side.serve_if_due();
  }
}

TEST_CASE("a crowd of silent peers does not keep others out") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  if (excluded("gate", backend)) return;
  const PeerProcess peer(backend);
  std::vector<FileDescriptor> crowd;
  for (std::size_t i = 0; i < limits::half_open_max * 4; ++i) crowd.push_back(dial(peer.address()));
  Side side(backend);
  side.connect(peer.address());
  side.write(0, 8, pack(Kind::echo, 0, 1));
  REQUIRE(side.wait().size() == 1);
  // The oldest had to go long before their time.
  REQUIRE(is_dropped(crowd.front(), limits::handshake_max));
}

TEST_CASE("an admitted peer that stops in the middle of its set-up keeps nobody out") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  if (excluded("half set-up", backend)) return;
  if (excluded("gate", backend)) return;
  const PeerProcess peer(backend, "quick");
  const FileDescriptor half = dial(peer.address());
  // A whole hello of 24 private bytes, which the peer takes for a region and accepts, then silence.
  std::vector<std::byte> hello = frame(1, sizeof(gate::HandshakeFront) + sizeof(RemoteRegion),
                                       sizeof(gate::HandshakeFront) + sizeof(RemoteRegion));
  hello[sizeof(gate::FrameHeader)] = std::byte{sizeof(RemoteRegion)};
  say(half, hello);
  std::array<std::byte, sizeof(gate::FrameHeader)> answer{};
  REQUIRE(::recv(half.get(), answer.data(), answer.size(), MSG_WAITALL) ==
          static_cast<ssize_t>(answer.size()));
  Side side(backend, quick);
  side.connect(peer.address());
  side.write(0, 8, pack(Kind::echo, 0, 1));
  REQUIRE(side.wait().size() == 1);
}

TEST_CASE("a live peer that talks nonsense loses its connection") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  if (excluded("gate", backend)) return;
  if (is_shm(backend)) return;  // The same gate; its socket cannot be found from outside.
  Side listening(backend, quick);
  const std::string address = listening.transport->listen(fresh_address(backend)).value();
  const FileDescriptor raw = dial(address);
  std::vector<std::byte> bytes = frame(1, sizeof(gate::HandshakeFront), sizeof(gate::HandshakeFront));
  const std::vector<std::byte> nonsense = frame(3, 0, 0);
  bytes.insert(bytes.end(), nonsense.begin(), nonsense.end());
  say(raw, bytes);  // A refusal right behind the hello: out of turn.
  const TimePoint deadline = SteadyClock::now() + patience;
  while (!is_dropped(raw, 0ms) && SteadyClock::now() < deadline) listening.transport->service(10ms);
  REQUIRE(listening.transport->requests().empty());
}

TEST_CASE("a rejection carries the peer's typed error") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  const Side side(backend);
  const std::array<std::byte, 3> no_region{};
  const auto refused = side.transport->connect(peer.address(), no_region, patience);
  REQUIRE_FALSE(refused.ok());
  REQUIRE(refused.error().code() == Errc::lease_expired);
  REQUIRE(refused.error().detail() == "come back with a region");
}

TEST_CASE("an address where nobody listens or nobody answers is a typed error") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const Side side(backend);
  const std::string address = is_shm(backend) ? fresh_address(backend) : address_of(own_host(backend), "1");
  REQUIRE(side.transport->connect(address, {}, 2s).error().code() == Errc::unavailable);
  REQUIRE(side.transport->connect("nonsense", {}, 2s).ok() == false);
  REQUIRE(side.transport->connect("", {}, 2s).error().code() == Errc::invalid_argument);
  const std::vector<std::byte> long_data(limits::connect_private_bytes + 1);
  REQUIRE(side.transport->connect(address, long_data, 2s).error().code() == Errc::too_large);

  const Side silent(backend);  // It listens, and nobody serves it.
  const std::string nobody = silent.transport->listen(fresh_address(backend)).value();
  REQUIRE(side.transport->connect(nobody, {}, 300ms).error().code() == Errc::timeout);
}

TEST_CASE("an address where nonsense comes back or the line is cut is a typed error") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  if (excluded("gate", backend)) return;
  const Side side(backend);
  gate::Address local = parse(is_shm(backend) ? fresh_address(backend) : "127.0.0.1:0");
  const FileDescriptor listener(::socket(local.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(listener.get(), local.get(), local.length) == 0);
  REQUIRE(::listen(listener.get(), 4) == 0);
  local.length = sizeof(local.storage);
  REQUIRE(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&local.storage), &local.length) == 0);
  const std::string silent = gate::to_text(local);
  std::thread answering([&] {
    for (const char* answer : {"HTTP/1.1 400 Bad Request\r\n\r\n", ""}) {
      const FileDescriptor socket(::accept(listener.get(), nullptr, nullptr));
      if (answer[0] == 0) continue;
      (void)!::send(socket.get(), answer, std::strlen(answer), MSG_NOSIGNAL);
      pollfd gone{socket.get(), POLLRDHUP, 0};
      ::poll(&gone, 1, 5000);
    }
  });
  const Errc nonsense = side.transport->connect(silent, {}, 5s).error().code();
  const Errc hung_up = side.transport->connect(silent, {}, 5s).error().code();
  answering.join();
  if (is_shm(backend)) ::unlink(silent.c_str());
  REQUIRE(nonsense == Errc::protocol_error);
  REQUIRE(hung_up == Errc::unavailable);
}

TEST_CASE("an answer that is not taken yet survives the heartbeats behind it") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  Side side(backend);
  PeerProcess peer(backend);
  const std::uint64_t attempt =
      side.transport->start_connect(peer.address(), wire::bytes_of(side.own), patience).value();
  const TimePoint later = SteadyClock::now() + 3 * limits::heartbeat_interval;
  while (SteadyClock::now() < later) side.transport->service(10ms);
  auto taken = side.transport->take_connected(attempt);
  const TimePoint deadline = SteadyClock::now() + patience;
  while (!taken && SteadyClock::now() < deadline) {
    side.transport->service(10ms);
    taken = side.transport->take_connected(attempt);
  }
  REQUIRE(taken.has_value());
  REQUIRE(taken->ok());
}

TEST_CASE("connects under way at once do not wait for one another") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  Side side(backend);
  const auto private_data = wire::bytes_of(side.own);
  const Side nobody(backend);  // It listens, and nobody serves it.
  const std::string silent = nobody.transport->listen(fresh_address(backend)).value();
  const std::uint64_t hopeless = side.transport->start_connect(silent, private_data, 300ms).value();
  const std::uint64_t unwanted = side.transport->start_connect(silent, private_data, 1min).value();

  constexpr std::size_t peers_count = 3;
  std::vector<std::unique_ptr<PeerProcess>> peers;
  std::map<std::uint64_t, bool> taken;
  for (std::size_t i = 0; i < peers_count; ++i) {
    peers.push_back(std::make_unique<PeerProcess>(backend));
    taken[side.transport->start_connect(peers.back()->address(), private_data, patience).value()] = false;
  }
  std::vector<Transport::Connected> connected;
  const TimePoint deadline = SteadyClock::now() + patience;
  while (connected.size() < peers_count && SteadyClock::now() < deadline) {
    side.transport->service(10ms);
    for (auto& [attempt, done] : taken) {
      if (done) continue;
      if (auto found = side.transport->take_connected(attempt)) {
        INFO((found->ok() ? "connected" : found->error().message()));
        REQUIRE(found->ok());
        connected.push_back(std::move(**found));
        done = true;
      }
    }
  }
  REQUIRE(connected.size() == peers_count);
  REQUIRE(side.transport->take_connected(taken.begin()->first)->error().code() ==
          Errc::not_found);  // Told once.
  REQUIRE_FALSE(side.transport->take_connected(unwanted).has_value());
  side.transport->give_up(unwanted);
  side.transport->give_up(unwanted);
  REQUIRE(side.transport->take_connected(unwanted)->error().code() == Errc::not_found);
  std::optional<Result<Transport::Connected>> late;
  while (!(late = side.transport->take_connected(hopeless)) && SteadyClock::now() < deadline) {
    side.transport->service(10ms);
  }
  REQUIRE(late.has_value());
  REQUIRE(late->error().code() == Errc::timeout);
  connected.clear();
}

TEST_CASE("a listener's address is its own") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  Side first(backend);
  Side second(backend);
  const std::string address = first.transport->listen(fresh_address(backend)).value();
  REQUIRE(second.transport->listen(address).error().code() == Errc::already_exists);
  REQUIRE(first.transport->listen(fresh_address(backend)).error().code() == Errc::already_exists);
  if (is_shm(backend)) {
    struct stat status {};
    REQUIRE(::stat(address.c_str(), &status) == 0);
    REQUIRE((status.st_mode & 0777U) == 0600U);
    first.transport.reset();
    REQUIRE(::stat(address.c_str(), &status) != 0);
  }
}

TEST_CASE("a thousand connects and disconnects leave nothing behind") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  const auto round = [&](std::uint32_t number) {
    side.connect(peer.address());
    side.write(0, 8, pack(Kind::echo, 0, number));
    REQUIRE(side.wait().size() == 1);
    side.connection.reset();
  };
  // The last ones are still being closed on both sides when they are counted: wait for that.
  const auto settled = [&](std::size_t (*count)(int), int process, std::size_t limit) {
    const TimePoint deadline = SteadyClock::now() + patience;
    while (count(process) > limit && SteadyClock::now() < deadline) side.transport->service(10ms);
    return count(process);
  };
  // An emulated device takes half a second for each, an unconnected endpoint with its buffers 30 ms.
  const bool slow = is_verbs(backend) || backend.starts_with("fabric:");
  const TimePoint enough = SteadyClock::now() + 30s;
  const auto rounds = [&](std::uint32_t most, std::uint32_t least) {
    std::uint32_t done = 0;
    while (done < most && (!slow || done < least || SteadyClock::now() < enough)) round(done++);
    if (done < most) WARN(backend << ": " << done << " of " << most << " connects, in 30 s");
  };
  rounds(100, 10);
  side.transport->service(0ms);
  const std::size_t own = open_descriptors(::getpid());
  const std::size_t own_resident = resident_bytes(::getpid());
  const std::size_t peer_resident = resident_bytes(peer.process());
  const std::size_t peer_own = open_descriptors(peer.process());
  rounds(900, 20);
  constexpr std::size_t slack = 8;
  REQUIRE(settled(open_descriptors, ::getpid(), own + slack) <= own + slack);
  REQUIRE(settled(open_descriptors, peer.process(), peer_own + slack) <= peer_own + slack);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  // An unconnected endpoint's buffers have 33 MiB, which malloc may keep for the next.
  const std::size_t memory_slack = std::size_t{backend.starts_with("fabric:") ? 64U : 8U} << 20U;
  const std::size_t own_limit = own_resident + memory_slack;
  const std::size_t peer_limit = peer_resident + memory_slack;
  REQUIRE(settled(resident_bytes, ::getpid(), own_limit) <= own_limit);
  REQUIRE(settled(resident_bytes, peer.process(), peer_limit) <= peer_limit);
#else
  (void)own_resident;
  (void)peer_resident;
#endif
}
