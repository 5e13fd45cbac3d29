#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/result.hpp"

/// The C++ client of Sublet.
///
///     auto site = sublet::Site::connect("http://127.0.0.1:7400").value();
///     auto lease = site.lease({.function = "digits@1", .workers = 2}).value();
///     auto input = lease.allocate(1024).value();
///     auto output = lease.allocate(64).value();
///     auto future = lease.submit(input, output).value();
///     std::size_t bytes = future.wait().value();
///
/// The library never prints, never exits and installs no signal handler. Each Lease runs one thread of
/// its own, the keeper: it answers heartbeats, renews the lease and replaces lost workers; for the time
/// of a request to the manager it has a second one, so that heartbeats go on. Neither runs the user's
/// code.
namespace sublet {

struct SiteOptions {
  std::string tenant = "default";
  std::chrono::milliseconds timeout{10'000};  ///< Bound of each request to the manager.
};

/// By which transports a lease's workers are reached: "shm" (on the same machine), "verbs" (InfiniBand, RoCE,
/// iWARP) or "tcp"; without wishes by the first of these that works. Workers that are not reached by what is
/// allowed are not granted; which way was taken, and why, is in WorkerStatus.
struct Transports {
  std::vector<std::string> require = {};  ///< By no other than these, tried in this order; empty: by any.
  std::vector<std::string> prefer = {};   ///< By these first, and workers that offer them first.
  std::vector<std::string> forbid = {};   ///< By none of these.
};

struct LeaseOptions {
  std::string function;  ///< "name@version", or "name" for the version deployed last.
  std::uint32_t workers = 1;
  std::uint32_t cores = 1;         ///< For each worker.
  std::uint64_t memory_bytes = 0;  ///< For each worker; 0: the node's default.
  std::chrono::milliseconds ttl{
      60'000};  ///< The lease ends so long after the last renewal that the manager saw.
  std::chrono::milliseconds wait{5'000};  ///< How long to wait for capacity and for the workers to answer.
  bool renew = true;                      ///< The keeper renews at half of ttl.
  Transports transports = {};
  std::uint32_t in_flight = 64;     ///< Calls in flight on each worker; a power of two, at most 4096.
  std::size_t slot_bytes = 131072;  ///< Inputs up to slot_bytes - 64 take the shortest way; a power of two.
  std::size_t arena_bytes = std::size_t{256}
                            << 20;     ///< Address space for allocate(); memory is taken when touched.
  std::chrono::microseconds hot{200};  ///< Worker and client poll so long at most before they sleep: less
                                       ///< while what they wait for takes 8 times as long. 0: they sleep.
};

struct CallOptions {
  std::uint32_t entry = 0;                         ///< Which function of the module.
  std::chrono::microseconds deadline{30'000'000};  ///< From submit on; > 0, at most a day.
  bool idempotent = false;                         ///< May be run again when its worker is lost.
};

class Lease;

/// A piece of a lease's registered memory. Move-only; destroying it gives the memory back, at the
/// latest when no call in flight uses it any more. One that outlives its Lease stays readable.
class SUBLET_API Buffer {
 public:
  Buffer() noexcept = default;
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {data_, size_}; }

 private:
  friend class Lease;
  friend struct LeaseState;
  struct LeaseState* owner_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::uint32_t block_ = 0;
};

/// One invocation under way. Move-only. Dropping it lets the call finish unobserved. One that outlives
/// its Lease ends as Errc::closed.
class SUBLET_API Future {
 public:
  Future() noexcept = default;
  Future(Future&& other) noexcept;
  Future& operator=(Future&& other) noexcept;
  ~Future();

  /// True when the final status is known. Makes progress. Blocks: never.
  [[nodiscard]] bool ready() noexcept;
  /// Waits for the final status, at most until the call's deadline (which is then the status).
  /// The output's size in bytes, or function_failed (with the function's message), not_started,
  /// worker_lost, deadline_exceeded, cancelled, lease_expired, lease_revoked, invalid_argument.
  /// Once: afterwards the future is empty (Errc::closed).
  [[nodiscard]] Result<std::size_t> wait() noexcept;
  /// Asks that the call not be started; it ends as `cancelled`, or as usual when it had started.
  void cancel() noexcept;

 private:
  friend class Lease;
  friend struct LeaseState;
  struct LeaseState* owner_ = nullptr;
  std::uint32_t call_ = 0;
  std::uint32_t generation_ = 0;
};

/// How one worker of a lease is reached now.
struct WorkerStatus {
  std::string node;
  std::uint32_t worker = 0;
  std::string transport;  ///< "tcp", "shm", "verbs"; empty while it is being replaced.
  std::string address;
  std::string why;         ///< Why by that one: "preferred", or "verbs refused: no device on this machine".
  bool fell_back = false;  ///< Another one was wished for, or tried before in vain.
  std::uint32_t in_flight = 0;
};

struct LeaseCounters {
  std::uint64_t submitted = 0;
  std::uint64_t succeeded = 0;
  std::uint64_t failed = 0;
  std::uint64_t rerun = 0;     ///< not_started, or worker_lost and idempotent: run again elsewhere.
  std::uint64_t replaced = 0;  ///< Workers.
};

/// The right to use some workers until a time. Thread safety: a Lease, its Buffers and Futures belong
/// to one thread at a time.
class SUBLET_API Lease {
 public:
  Lease(Lease&&) noexcept;
  Lease& operator=(Lease&&) noexcept;
  /// Releases the lease at the manager, within SiteOptions::timeout; calls in flight are abandoned.
  ~Lease();

  /// Registered memory for inputs and outputs, 64-byte aligned. Not on the invocation path.
  /// @retval Errc::out_of_memory  Raise LeaseOptions::arena_bytes or free buffers.
  [[nodiscard]] Result<Buffer> allocate(std::size_t bytes);

  /// Starts one invocation on the worker with the fewest in flight and returns without waiting for it.
  ///
  /// @param input  The first input_bytes of it are sent. Leave unchanged until the future is ready;
  ///               several calls in flight may share one input.
  /// @param output Written by the worker: leave unread until the future is ready; one call at a time.
  /// @retval Errc::queue_full     Nothing was sent: take a result first.
  /// @retval Errc::busy           `output` belongs to a call in flight.
  /// @retval Errc::too_large      The input exceeds the worker's region.
  /// @retval Errc::invalid_argument, Errc::lease_expired, Errc::lease_revoked
  /// A call that comes back not_started is run again on another worker until its deadline.
  /// Blocks: never. Allocates: never.
  [[nodiscard]] Result<Future> submit(const Buffer& input, std::size_t input_bytes, Buffer& output,
                                      const CallOptions& options = {}) noexcept;
  [[nodiscard]] Result<Future> submit(const Buffer& input, Buffer& output,
                                      const CallOptions& options = {}) noexcept {
    return submit(input, input.size(), output, options);
  }

  /// submit() and wait().
  [[nodiscard]] Result<std::size_t> invoke(const Buffer& input, std::size_t input_bytes, Buffer& output,
                                           const CallOptions& options = {}) noexcept;

  /// Makes progress on everything in flight. Blocks: never.
  void poll() noexcept;

  [[nodiscard]] std::vector<WorkerStatus> workers() const;
  [[nodiscard]] LeaseCounters counters() const noexcept;
  [[nodiscard]] std::uint64_t id() const noexcept;

  /// Releases the lease now and says whether the manager has heard it; idempotent.
  [[nodiscard]] Status release();

 private:
  friend class Site;
  explicit Lease(struct LeaseState* state) noexcept;
  struct LeaseState* state_ = nullptr;
};

/// A manager as a client sees it. Thread safety: one thread at a time.
class SUBLET_API Site {
 public:
  /// Checks that a manager answers at `url` ("http://host:port").
  [[nodiscard]] static Result<Site> connect(const std::string& url, const SiteOptions& options = {});
  Site(Site&&) noexcept;
  Site& operator=(Site&&) noexcept;
  ~Site();

  /// Acquires a lease and connects to all its workers. Blocks at most options.wait + SiteOptions::timeout.
  [[nodiscard]] Result<Lease> lease(const LeaseOptions& options);

  /// Deploys the shared library at `path` as name@version. The same bytes again are no error; other
  /// bytes under a version that exists are refused with already_exists.
  [[nodiscard]] Status deploy(const std::string& name, const std::string& version, const std::string& path);

 private:
  struct State;
  explicit Site(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace sublet
