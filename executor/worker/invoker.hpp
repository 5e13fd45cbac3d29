#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "executor/worker/module.hpp"
#include "executor/worker/output_buffers.hpp"
#include "executor/worker/usage_counter.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/hot_window.hpp"
#include "runtime/memory/region.hpp"
#include "runtime/transport/transport.hpp"
#include "runtime/wire/handshake.hpp"
#include "runtime/wire/request.hpp"
#include "runtime/wire/word.hpp"

namespace sublet::worker {

/// What the invoker needs for the one connection that it serves.
struct Service {
  std::unique_ptr<transport::Connection> connection;
  wire::Layout layout;
  const memory::Region* input = nullptr;
  const memory::Region* output = nullptr;
};

/// Why run() returned.
enum class Stop : std::uint8_t { goodbye, client_lost, ordered, misbehaved };

/// Runs calls: polls the connection, queues what arrives, runs it in order, writes the replies.
///
/// run() belongs to the main thread. While a function runs, the steward thread may take the
/// connection over (try_take .. give_back) to keep data, heartbeats and refusals moving; the main
/// thread takes it back with one compare-and-swap when the function returns.
/// Between attach and the end nothing here allocates, locks, logs or, while calls arrive, enters the kernel.
class Invoker {
 public:
  /// @param usage Counted into; outlives the invoker.
  Invoker(Service service, const Module& module, local::UsageRecord& usage);

  /// Serves until the client leaves, is lost or stop_soon() was called. Main thread.
  [[nodiscard]] Stop run() noexcept;

  /// Makes run() stop admitting: queued calls are answered not_started, a running one finishes, then
  /// run() returns. Any thread.
  void stop_soon() noexcept;

  /// The steward's view of a call that runs.
  struct Running {
    std::uint16_t slot = 0;
    std::uint16_t generation = 0;
    TimePoint deadline;
  };

  // For the steward, while a function runs:
  /// Takes the connection; false when no function runs.
  [[nodiscard]] bool try_take() noexcept;
  void give_back() noexcept;
  // Only between try_take and give_back:
  [[nodiscard]] const Running& running() const noexcept { return running_; }
  void poll_arrivals() noexcept;
  /// Counts what the running call has used until `now`.
  void count_running(TimePoint now) noexcept { usage_.call_goes_on(now); }
  /// Answers what waits in the queue with not_started.
  void refuse_queue(std::string_view why) noexcept;
  /// Gives the running call its status and lets the replies out, for at most `wait_max`.
  void abandon_running(wire::ReplyKind status, std::string_view why,
                       std::chrono::milliseconds wait_max) noexcept;

  /// For the crash handler: async-signal-safe.
  void say_crashed(int signal) noexcept;
  /// True while the main thread sleeps and needs no ticks. Any thread.
  [[nodiscard]] bool asleep() const noexcept { return asleep_.load(std::memory_order_acquire); }
  /// Readable soon after the main thread woke from sleep: the steward then looks for long calls.
  [[nodiscard]] int awake_descriptor() const noexcept { return awake_timer_.get(); }
  /// How many renewals have arrived; the steward reads and checks the token itself. Any thread.
  [[nodiscard]] std::uint64_t renewals() const noexcept { return renewals_.load(std::memory_order_acquire); }
  /// True when the client has left; the running function works for nobody. Only between try_take and
  /// give_back.
  [[nodiscard]] bool client_gone() const noexcept { return finished_; }

 private:
  enum class Owner : std::uint8_t { invoker, running, steward };
  struct Pending {
    std::uint16_t slot = 0;
    std::uint16_t generation = 0;
    bool full_header = false;
    std::uint64_t bytes = 0;  ///< That arrived, header included.
    TimePoint arrived;
  };
  struct Slot {
    std::uint16_t last_generation = 0;
    bool queued = false;
    bool cancelled = false;
    bool header_known = false;
  };

  void on_completion(const transport::Completion& completion) noexcept;
  void on_arrival(std::uint32_t word, std::uint64_t length) noexcept;
  void on_attach(std::uint64_t length) noexcept;
  void enqueue(const wire::Word& word, std::uint64_t length) noexcept;
  void run_next() noexcept;
  [[nodiscard]] const char* validate(const wire::RequestHeader& header,
                                     const Pending& pending) const noexcept;
  /// @param now Read after all that had to be checked before the call.
  void execute(const wire::RequestHeader& header, const Pending& pending, TimePoint now) noexcept;
  void reply(wire::ReplyKind kind, std::uint16_t slot, std::uint16_t generation,
             std::string_view text) noexcept;
  void write_reply(std::span<const std::byte> bytes, std::uint64_t offset, wire::Word word,
                   transport::Connection::WriteOptions options) noexcept;
  void run_function(sublet_call& call) noexcept;
  void drain() noexcept;
  /// The end in good order: nothing that was sent is left without a word.
  void say_goodbye(std::string_view why, std::chrono::milliseconds wait_max) noexcept;
  /// Tells the client that this worker drains, behind all replies, and waits until that is out.
  void flush(std::chrono::milliseconds wait_max) noexcept;
  [[nodiscard]] std::size_t text_bytes() const noexcept {
    return service_.layout.slots * limits::message_bytes;
  }
  void idle() noexcept;
  void sleep() noexcept;
  void watch_from(TimePoint now) noexcept;

  Service service_;
  const Module& module_;
  UsageCounter usage_;
  transport::RemoteRegion client_;
  std::uint64_t messages_offset_ = 0;
  HotWindow hot_;
  OutputBuffers buffers_;
  std::vector<Slot> slots_;
  std::vector<Pending> queue_;  ///< Ring of as many as there are slots: each is queued once at most.
  std::size_t queue_head_ = 0;
  std::size_t queue_size_ = 0;
  Running running_;
  TimePoint busy_at_;
  TimePoint steward_looks_;  ///< When awake_timer_ fires.
  std::uint32_t idle_polls_ = 0;
  bool attached_ = false;
  wire::LastWords last_answered_{.slot = wire::LastWords::no_slot};
  bool failed_ = false;
  bool flushed_ = false;
  bool finished_ = false;
  Stop stop_ = Stop::client_lost;

  std::atomic<Owner> owner_{Owner::invoker};
  std::atomic<bool> stop_soon_{false};
  std::atomic<bool> asleep_{false};
  std::atomic<std::uint64_t> renewals_{0};
  std::atomic<std::uint32_t> crash_word_{0};  ///< Slot and generation of the running call, for say_crashed.
  FileDescriptor wake_;
  FileDescriptor awake_timer_;
};

}  // namespace sublet::worker
