#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "client/blocks.hpp"
#include "client/in_flight.hpp"
#include "client/region_plan.hpp"
#include "client/worker_link.hpp"

namespace sublet::client {

struct InvocationCounters {
  std::uint64_t submitted = 0;
  std::uint64_t succeeded = 0;
  std::uint64_t failed = 0;
  std::uint64_t rerun = 0;
};

/// A worker that was lost: its place waits for a replacement.
struct LostWorker {
  std::uint32_t link = 0;
  Errc error = Errc::peer_lost;
  std::unique_ptr<transport::Connection> connection;  ///< For the service thread to destroy.
};

/// All calls of a lease over all its workers: where a call goes, what a reply means for it, what happens
/// to it when its worker is lost, its deadline passes or the lease ends. Every submitted call gets exactly
/// one final status. Time is passed in. Thread safety: the holder of the lease's data path.
class Invocations {
 public:
  Invocations(std::byte* region, std::size_t region_bytes, const RegionPlan& plan, std::uint32_t hot_us);

  // Set-up: invocations.cpp.

  /// Fills the empty place `link`. @param region Our region as the connection's transport names it.
  [[nodiscard]] Status connect(std::uint32_t link, Established established,
                               const transport::RemoteRegion& region);
  /// Ends all calls with `reason`, takes no more and closes all connections.
  void end(Errc reason) noexcept;
  /// Workers lost since the last call. Their connections must be destroyed by the service thread.
  [[nodiscard]] std::vector<LostWorker> take_lost();
  [[nodiscard]] bool has_lost() const noexcept { return !lost_.empty(); }
  /// A new token for the worker, if it is still there.
  void renew(std::uint64_t node, std::uint32_t worker, const wire::SignedToken& token) noexcept;

  // Data path: datapath.cpp.

  /// Sends the call to the worker with the fewest in flight. Without any worker it waits for one.
  [[nodiscard]] Result<CallHandle> submit(const CallSpec& spec, TimePoint now) noexcept;
  /// Takes what has come, sends what waits, ends what is overdue. @param all Looks at idle workers too.
  void progress(TimePoint now, bool all) noexcept;
  void cancel(CallHandle handle) noexcept;

  [[nodiscard]] Call* find(CallHandle handle) noexcept { return calls_.find(handle); }
  void forget(Call& call) noexcept { calls_.forget(call); }
  [[nodiscard]] Blocks& blocks() noexcept { return blocks_; }
  [[nodiscard]] std::vector<WorkerLink>& links() noexcept { return links_; }
  [[nodiscard]] const std::vector<WorkerLink>& links() const noexcept { return links_; }
  [[nodiscard]] const InvocationCounters& counters() const noexcept { return counters_; }
  [[nodiscard]] std::uint32_t unfinished() const noexcept { return calls_.unfinished(); }
  [[nodiscard]] bool ended() const noexcept { return end_reason_ != Errc{}; }
  [[nodiscard]] Errc end_reason() const noexcept { return end_reason_; }

 private:
  static constexpr std::size_t batch_max = 32;

  // Data path.
  [[nodiscard]] Status check(const CallSpec& spec) const noexcept;
  [[nodiscard]] WorkerLink* least_busy() noexcept;
  [[nodiscard]] bool any_usable() const noexcept;
  [[nodiscard]] Status place(Call& call) noexcept;
  void place_waiting(TimePoint now) noexcept;
  void poll(WorkerLink& link) noexcept;
  void take_reply(WorkerLink& link, const transport::Completion& completion) noexcept;
  void settle(WorkerLink& link, const WorkerLink::Reply& reply, std::uint64_t length) noexcept;
  void release_slot(WorkerLink& link, std::uint32_t slot) noexcept;
  void finish(Call& call, bool ok, Errc error, std::uint64_t output_bytes = 0) noexcept;

  // Off the data path, when a worker is lost: invocations.cpp.
  void lose(WorkerLink& link, Errc error) noexcept;
  [[nodiscard]] static std::optional<std::uint64_t> named_sequence(const WorkerLink& link,
                                                                   const wire::LastWords& words) noexcept;
  void settle_lost(WorkerLink& link, std::uint32_t slot, const wire::LastWords* last,
                   std::uint64_t last_sequence) noexcept;
  void run_again(Call& call) noexcept;
  void keep_message(Call& call, std::span<const std::byte> text) noexcept;
  void expire(TimePoint now) noexcept;
  void send_cancels() noexcept;

  RegionPlan plan_;
  std::size_t region_bytes_;
  std::uint32_t hot_us_;
  Blocks blocks_;
  InFlight calls_;
  std::vector<WorkerLink> links_;
  std::vector<LostWorker> lost_;
  InvocationCounters counters_;
  std::uint32_t entries_ = 0;  // Of the module; 0 until the first worker has said it.
  std::uint32_t cancels_unsent_ = 0;
  Errc end_reason_{};
  std::array<transport::Completion, batch_max>
      batch_;  // Of poll(), which would clear one of its own each time.
};

}  // namespace sublet::client
