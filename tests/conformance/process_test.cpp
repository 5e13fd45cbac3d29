#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>

#include "runtime/wire/handshake.hpp"
#include "tests/conformance/harness.hpp"

using namespace conformance;

namespace {

std::array<struct sigaction, NSIG> handlers() {
  std::array<struct sigaction, NSIG> all{};
  for (int signal = 1; signal < NSIG; ++signal) {
    ::sigaction(signal, nullptr, &all[static_cast<std::size_t>(signal)]);
  }
  return all;
}

std::size_t threads() {
  const auto folder = std::filesystem::directory_iterator("/proc/self/task");
  return static_cast<std::size_t>(std::distance(begin(folder), end(folder)));
}

/// Calls service() as a program's service thread does.
class ServiceThread {
 public:
  explicit ServiceThread(Transport& transport)
      : thread_([this, &transport] {
          while (!stop_.load(std::memory_order_relaxed)) transport.service(20ms);
        }) {}
  ~ServiceThread() {
    stop_.store(true, std::memory_order_relaxed);
    thread_.join();
  }
  ServiceThread(const ServiceThread&) = delete;
  ServiceThread& operator=(const ServiceThread&) = delete;

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace

TEST_CASE("opening a transport leaves the process's signal handlers and threads as they were") {
  const auto before = handlers();
  const std::size_t threads_before = threads();
  REQUIRE(preload().ok());
  for (const std::string& name : names()) REQUIRE(open(name).ok());
  const auto after = handlers();
  for (std::size_t i = 1; i < before.size(); ++i) {
    CAPTURE(i);
    REQUIRE(before[i].sa_sigaction == after[i].sa_sigaction);
    REQUIRE(before[i].sa_flags == after[i].sa_flags);
  }
  REQUIRE(threads() == threads_before);
}

#if !defined(__SANITIZE_THREAD__)  // It does not follow a process that forks.
TEST_CASE("a process forked after preload uses every backend") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  REQUIRE(preload().ok());
  const int child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    bool done = false;
    {
      Side side(backend);
      Result<Transport::Connected> connected = side.try_connect(peer.address());
      if (connected) {
        side.connection = std::move(connected->connection);
        side.remote = *wire::read_as<RemoteRegion>(connected->private_data);
        side.write(0, 8, pack(Kind::echo, 0, 1));
        done = side.wait().size() == 1;
      }
    }
    ::_exit(done ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  REQUIRE(WEXITSTATUS(status) == 0);
}
#endif

TEST_CASE("a connection's owner works and ends while another thread serves the transport") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend, "quick");
  Side side(backend, quick);
  for (std::uint32_t round = 0; round < 20; ++round) {
    side.connect(peer.address());
    std::array<Completion, 16> batch;
    const ServiceThread service(*side.transport);
    const std::array pieces{std::span<const std::byte>(side.region.data(), 16)};
    for (std::uint32_t i = 0; i < 500; ++i) {
      REQUIRE(side.connection->write(pieces, side.remote, 0, pack(Kind::echo, 0, i), {}).ok());
      std::size_t count = 0;
      const TimePoint deadline = SteadyClock::now() + patience;
      while (count == 0 && SteadyClock::now() < deadline) count = side.connection->poll(batch);
      REQUIRE(count == 1);
      REQUIRE(batch[0].word == pack(Kind::echo, 0, i));
    }
    side.connection.reset();  // While the service thread runs.
  }
}

TEST_CASE("the death of a peer crosses from the service thread to the owner") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  for (int round = 0; round < 5; ++round) {
    const PeerProcess peer(backend);
    Side side(backend);
    side.connect(peer.address());
    const ServiceThread service(*side.transport);
    peer.signal(SIGKILL);
    std::array<Completion, 4> batch;
    std::size_t count = 0;
    const TimePoint deadline = SteadyClock::now() + limits::peer_lost_max;
    while (count == 0 && SteadyClock::now() < deadline) count = side.connection->poll(batch);
    REQUIRE(count == 1);
    REQUIRE(batch[0].kind == Completion::Kind::down);
    REQUIRE(batch[0].error == Errc::peer_lost);
    side.connection.reset();
  }
}

TEST_CASE("connections and transports end in any order") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  {
    Side side(backend);
    side.connect(peer.address());
    side.transport.reset();
    std::array<Completion, 4> batch;
    const std::size_t count = side.connection->poll(batch);
    if (count > 0) REQUIRE(batch[0].kind == Completion::Kind::down);
    side.connection->close();
    side.connection->close();
    const std::array pieces{std::span<const std::byte>(side.region.data(), 8)};
    REQUIRE(side.connection->write(pieces, side.remote, 0, 0, {}).error().code() == Errc::closed);
    REQUIRE(side.connection->poll(batch) == 0);
  }
  Side next(backend);
  next.connect(peer.address());
  next.write(0, 8, pack(Kind::echo, 0, 1));
  REQUIRE(next.wait().size() == 1);
}
