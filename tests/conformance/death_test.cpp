#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>

#include "tests/conformance/harness.hpp"

using namespace conformance;

namespace {

bool run(const std::string& command) {
  return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
}

/// This thread in a network namespace of its own until the end of the scope.
class OwnNetwork {
 public:
  OwnNetwork() : before_(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)) {
    entered_ = ::unshare(CLONE_NEWNET) == 0;
  }
  ~OwnNetwork() {
    if (entered_ && ::setns(before_.get(), CLONE_NEWNET) != 0) std::abort();
  }
  OwnNetwork(const OwnNetwork&) = delete;
  OwnNetwork& operator=(const OwnNetwork&) = delete;
  [[nodiscard]] bool entered() const { return entered_; }

 private:
  FileDescriptor before_;
  bool entered_ = false;
};

}  // namespace

TEST_CASE("a peer killed while idle is told") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  peer.signal(SIGKILL);
  REQUIRE(side.wait_down(limits::peer_lost_max).error == Errc::peer_lost);
  REQUIRE(side.connection->last_words().empty());
  // Told once, and nothing works any more.
  REQUIRE(side.wait(50ms).empty());
  const std::array pieces{std::span<const std::byte>(side.region.data(), 8)};
  REQUIRE(side.connection->write(pieces, side.remote, 0, 0, {}).error().code() == Errc::peer_lost);
}

TEST_CASE("a peer killed while it sends is told") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  side.command(Kind::flood);
  REQUIRE_FALSE(side.wait().empty());
  peer.signal(SIGKILL);
  REQUIRE(side.wait_down(limits::peer_lost_max).error == Errc::peer_lost);
}

TEST_CASE("a peer killed while it receives is told, and writing never hangs") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  const std::array pieces{std::span<const std::byte>(side.region.data(), 100'000)};
  std::array<Completion, 64> batch;
  const TimePoint kill_at = SteadyClock::now() + 50ms;
  const TimePoint deadline = SteadyClock::now() + limits::peer_lost_max + 1s;
  bool killed = false;
  bool down = false;
  while (!down && SteadyClock::now() < deadline) {
    (void)side.connection->write(pieces, side.remote, 0, pack(Kind::stall, 0, 0), {});
    for (const Completion& completion : std::span(batch).first(side.connection->poll(batch))) {
      down = completion.kind == Completion::Kind::down;
      if (down) REQUIRE(completion.error == Errc::peer_lost);
    }
    if (!killed && SteadyClock::now() > kill_at) {
      peer.signal(SIGKILL);
      killed = true;
    }
    side.serve_if_due();
  }
  REQUIRE(killed);
  REQUIRE(down);
}

TEST_CASE("an owner asleep is woken by the death of its peer") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  while (!side.connection->arm()) (void)side.wait(1ms);
  peer.signal(SIGKILL);
  const TimePoint deadline = SteadyClock::now() + limits::peer_lost_max;
  pollfd event{side.connection->descriptor(), POLLIN, 0};
  while (::poll(&event, 1, 0) == 0 && SteadyClock::now() < deadline) side.transport->service(10ms);
  REQUIRE((event.revents & POLLIN) != 0);
  REQUIRE(side.wait_down(limits::peer_lost_max).error == Errc::peer_lost);
}

TEST_CASE("a stopped peer is told within the bound") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend, "quick");
  Side side(backend, quick);
  side.connect(peer.address());
  side.write(0, 8, pack(Kind::echo, 0, 1));
  REQUIRE(side.wait().size() == 1);
  peer.signal(SIGSTOP);
  side.write(0, 8, pack(Kind::echo, 0, 2));  // Into the silence.
  REQUIRE(side.wait_down(limits::peer_lost_max).error == Errc::peer_lost);
}

TEST_CASE("a peer that computes for long but serves its transport is not lost") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend, "quick");
  Side side(backend, quick);
  side.connect(peer.address());
  // Neither side has anything to say for longer than silence is borne.
  const TimePoint end = SteadyClock::now() + quick.peer_silent_max + 600ms;
  while (SteadyClock::now() < end) REQUIRE(side.wait(50ms).empty());
  side.write(0, 8, pack(Kind::echo, 0, 1));
  REQUIRE(side.wait().front().kind == Completion::Kind::arrival);
}

TEST_CASE("last words arrive and are told with the end") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  REQUIRE(side.connection->last_words().empty());
  side.command(Kind::last_words);
  REQUIRE(side.wait_down(limits::peer_lost_max).error == Errc::peer_lost);
  const auto words = side.connection->last_words();
  REQUIRE(std::string(reinterpret_cast<const char*>(words.data()), words.size()) == "farewell");
}

TEST_CASE("what a peer wrote before it closed arrives before the end") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  for (std::uint32_t round = 0; round < 20; ++round) {
    Side side(backend);
    side.connect(peer.address());
    const std::uint32_t total = 1 + round * 50;
    side.command(Kind::close, total);
    std::uint32_t received = 0;
    Errc error{};
    while (error == Errc{}) {
      const std::vector<Completion> some = side.wait();
      REQUIRE_FALSE(some.empty());
      for (const Completion& completion : some) {
        if (completion.kind == Completion::Kind::down) {
          error = completion.error;
        } else {
          REQUIRE(error == Errc{});
          REQUIRE(number_of(completion.word) == received++);
        }
      }
    }
    REQUIRE(error == Errc::closed);
    REQUIRE(received == total);
  }
}

TEST_CASE("a deregistered region is no longer written") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  if (excluded("deregister", backend)) return;
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  side.write(0, 8, pack(Kind::echo, 0, 1));
  REQUIRE(side.wait().size() == 1);
  std::memset(side.region.data(), 0, side.region.size());
  side.transport->deregister(side.own);
  side.write(0, 0, pack(Kind::fill, 0, 3));
  REQUIRE(side.wait_down(limits::peer_lost_max).error == Errc::peer_lost);
  REQUIRE(digest(side.region.bytes()) == digest(std::vector<std::byte>(side.region.size())));
}

TEST_CASE("a link that goes down is told within the bound") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  if (excluded("link down", backend)) return;
  const OwnNetwork network;
  const auto prepare = [](int process) {
    return run("ip link add sublet0 type veth peer name sublet1 netns " + std::to_string(process)) &&
           run("ip address add 10.213.7.1/24 dev sublet0") && run("ip link set sublet0 up") &&
           run("ip link set lo up") &&
           run("nsenter -t " + std::to_string(process) + " -n ip address add 10.213.7.2/24 dev sublet1") &&
           run("nsenter -t " + std::to_string(process) + " -n ip link set sublet1 up");
  };
  if (!network.entered()) {
    WARN("SKIP: network namespaces need CAP_SYS_ADMIN");
    return;
  }
  const PeerProcess peer(backend, "10.213.7.2:0", "quick", prepare);
  if (peer.address().empty()) {
    WARN("SKIP: a veth pair cannot be made here (CAP_NET_ADMIN, iproute2, nsenter)");
    return;
  }
  Side side(backend, quick);
  side.connect(peer.address());
  side.write(0, 8, pack(Kind::echo, 0, 1));
  REQUIRE(side.wait().size() == 1);
  REQUIRE(run("ip link set sublet0 down"));
  side.write(0, 8, pack(Kind::echo, 0, 2));
  REQUIRE(side.wait_down(limits::peer_lost_max).error == Errc::peer_lost);
}
