#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/clock.hpp"
#include "runtime/base/file_descriptor.hpp"
#include "runtime/memory/region.hpp"
#include "runtime/transport/transport.hpp"
#include "tests/catch.hpp"
#include "tests/conformance/protocol.hpp"

namespace conformance {

using namespace sublet;
using namespace sublet::transport;
using namespace std::chrono_literals;

/// Long enough for a busy machine under a sanitizer; nothing waits for it when all is well.
inline constexpr std::chrono::milliseconds patience{20'000};

/// Every backend that this machine can use, and each within the fault decorator; or the one that the
/// environment variable SUBLET_TEST_TRANSPORT names, by itself.
std::vector<std::string> backends();
/// The same without the decorator.
std::vector<std::string> plain_backends();
/// A case that cannot hold for a backend, as data with its reason: prints it and returns true.
bool excluded(const std::string& test, const std::string& backend);
/// An address to listen on, unused.
std::string fresh_address(const std::string& backend);
bool is_shm(const std::string& backend);
bool is_verbs(const std::string& backend);
/// Where the suite listens. For verbs the environment variable SUBLET_TEST_RDMA_ADDRESS may say it;
/// otherwise it is the first address of the first device.
std::string own_host(const std::string& backend);
/// "10.0.0.1:4711", "[::1]:0".
std::string address_of(const std::string& host, const std::string& port);

/// conformance_peer as a child, killed at the end.
class PeerProcess {
 public:
  explicit PeerProcess(const std::string& backend, const std::string& timing = "default");
  /// In a network namespace of its own: `prepare` gets its process id before it listens.
  PeerProcess(const std::string& backend, const std::string& address, const std::string& timing,
              const std::function<bool(int)>& prepare);
  ~PeerProcess();
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;

  [[nodiscard]] const std::string& address() const { return address_; }
  [[nodiscard]] int process() const { return process_; }
  void signal(int number) const;
  [[nodiscard]] bool alive() const;

 private:
  void start(const std::vector<std::string>& arguments);
  [[nodiscard]] std::string read_line();
  int process_ = -1;
  FileDescriptor output_;
  FileDescriptor input_;
  std::string address_;
};

/// This process's end of one connection, with a region of its own.
class Side {
 public:
  explicit Side(const std::string& backend, const Timing& timing = {});

  /// Connects and exchanges regions. Fails the test when it cannot.
  void connect(const std::string& address);
  [[nodiscard]] Result<Transport::Connected> try_connect(const std::string& address,
                                                         std::chrono::milliseconds timeout = patience);

  /// Writes bytes of the own region to the same offset of the peer's; retries a full queue.
  void write(std::size_t offset, std::size_t length, std::uint32_t word,
             Connection::WriteOptions options = {});
  void command(Kind kind, std::uint32_t number = 0) { write(0, 8, pack(kind, 0, number)); }
  /// Polls and serves until a completion comes that is no `sent`, or `limit` has passed.
  [[nodiscard]] std::vector<Completion> wait(std::chrono::milliseconds limit = patience);
  /// Skips what else comes until `down`, fails after `limit`.
  [[nodiscard]] Completion wait_down(std::chrono::milliseconds limit);
  void serve_if_due();
  /// Gives a pattern that depends on `seed` to bytes of the own region.
  void fill(std::size_t offset, std::size_t length, std::uint32_t seed);
  [[nodiscard]] bool holds(std::size_t offset, std::size_t length, std::uint32_t seed) const;

  memory::Region region;  ///< Outlives the transport that it is registered in.
  std::unique_ptr<Transport> transport;
  RemoteRegion own;
  RemoteRegion remote;
  std::unique_ptr<Connection> connection;

 private:
  void collect(std::vector<Completion>& found);
  TimePoint next_service_{};
  std::vector<Completion> stash_;
};

std::size_t open_descriptors(int process);
std::size_t resident_bytes(int process);

}  // namespace conformance
