#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "executor/local/messages.hpp"
#include "executor/local/usage_page.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/memory/region.hpp"
#include "runtime/transport/transport.hpp"
#include "runtime/wire/request.hpp"
#include "runtime/wire/word.hpp"

/// A real template process and real workers, with the test in the agent's place; and a client that
/// writes what it likes, well-formed or not.
namespace sublet::test {

enum Entry : std::uint32_t { echo, fail, crash, spin, hog, overflow_stack, reverse, leave_behind, entries };

class WorkerHarness {
 public:
  WorkerHarness();
  ~WorkerHarness();
  WorkerHarness(const WorkerHarness&) = delete;
  WorkerHarness& operator=(const WorkerHarness&) = delete;

  struct Worker {
    std::uint32_t id = 0;
    pid_t pid = 0;
    FileDescriptor socket;
    std::map<std::string, std::string> endpoints;
    FileDescriptor usage;
  };
  /// Forks a worker and waits until it listens.
  [[nodiscard]] Worker start(bool preload = false);
  /// A token that opens the worker for `lease_ms` from now on.
  [[nodiscard]] wire::SignedToken token(const Worker& worker, std::int64_t lease_ms = 60'000) const;
  /// Waits for the worker's next packet of type T; answers attach requests meanwhile.
  template <typename T>
  [[nodiscard]] std::optional<T> expect(Worker& worker,
                                        std::chrono::milliseconds wait_max = std::chrono::seconds(20)) {
    const TimePoint end = SteadyClock::now() + wait_max;
    while (SteadyClock::now() < end) {
      if (const auto packet = next_packet(worker, end)) {
        if (const auto found = packet->as<T>()) return found;
      } else {
        return std::nullopt;
      }
    }
    return std::nullopt;
  }
  /// What the worker has counted.
  [[nodiscard]] static local::UsageRecord usage(const Worker& worker) {
    return local::read_usage(worker.usage.get()).value();
  }
  /// Answers what the worker asks of its agent, without waiting.
  void serve(Worker& worker);
  /// Waits until the process has ended; its wait status.
  [[nodiscard]] std::optional<int> wait_exit(Worker& worker,
                                             std::chrono::milliseconds wait_max = std::chrono::seconds(20));

  std::optional<Error> refuse_with;  ///< What the "agent" says to attach requests; none: granted.

 private:
  [[nodiscard]] std::optional<local::Packet> next_packet(Worker& worker, TimePoint end);
  void answer(Worker& worker, const wire::Token& token);

  std::string directory_;
  SecretKey node_key_{};
  FileDescriptor socket_;
  pid_t pid_ = -1;
  std::uint32_t next_ = 1;
};

/// A client of one worker that knows the protocol and keeps to it only where the test wants.
class RawClient {
 public:
  RawClient(const std::string& transport, WorkerHarness& harness, WorkerHarness::Worker& worker);

  /// Connects with any private data; the worker's agent is served meanwhile.
  [[nodiscard]] Status connect(std::span<const std::byte> hello);
  /// Connects and attaches as a client should.
  [[nodiscard]] Status open(const wire::SignedToken& token, std::uint8_t slots_log2 = 4,
                            std::uint8_t slot_bytes_log2 = 12);
  void attach();

  struct Reply {
    wire::Word word;
    std::uint64_t length = 0;
    [[nodiscard]] wire::ReplyKind kind() const noexcept { return static_cast<wire::ReplyKind>(word.kind); }
  };
  [[nodiscard]] wire::RequestHeader header(std::uint32_t entry, std::uint32_t slot) const;
  [[nodiscard]] Status send(wire::RequestKind kind, std::uint16_t slot, std::uint16_t generation,
                            const wire::RequestHeader& header, std::string_view payload);
  [[nodiscard]] Status send_word(wire::RequestKind kind, std::uint16_t slot, std::uint16_t generation);
  /// The next reply, or nothing when the connection is down (see down()) or the time is over.
  [[nodiscard]] std::optional<Reply> next(std::chrono::milliseconds wait_max = std::chrono::seconds(20));
  void service() { transport_->service(std::chrono::milliseconds(0)); }
  [[nodiscard]] bool down() const noexcept { return down_; }
  [[nodiscard]] std::string output(const Reply& reply) const;
  [[nodiscard]] std::string message(const Reply& reply) const;
  void renew(const wire::SignedToken& token);
  void close() { connection_->close(); }
  [[nodiscard]] std::optional<wire::LastWords> last_words() const;

  static constexpr std::size_t output_bytes = 8192;
  memory::Region region;
  transport::RemoteRegion remote;  ///< The worker's.
  std::unique_ptr<transport::Connection> connection_;

 private:
  WorkerHarness& harness_;
  WorkerHarness::Worker& worker_;
  std::unique_ptr<transport::Transport> transport_;
  transport::RemoteRegion own_;
  std::uint32_t slots_ = 16;
  std::size_t slot_bytes_ = 4096;
  bool down_ = false;
  static constexpr std::size_t staged = 16;
  static constexpr std::size_t staged_bytes = 16384;
  memory::Region staging_;  ///< A piece for each slot: unchanged until the reply.
};

}  // namespace sublet::test
