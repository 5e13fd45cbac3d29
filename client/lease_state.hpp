#pragma once

#include <poll.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/invocations.hpp"
#include "client/ownership.hpp"
#include "client/wakeup.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/base/hot_window.hpp"
#include "runtime/control/api.hpp"
#include "runtime/memory/region.hpp"
#include "sdk/cpp/sublet/client.hpp"

namespace sublet {

namespace client {
class Keeper;
}

/// What a Lease, its Buffers and its Futures share. The user's thread and the keeper meet in
/// `ownership`: what is said to be under it is touched by its holder alone.
struct LeaseState {
  /// Acquires the lease, starts the keeper and waits until all workers are connected.
  [[nodiscard]] static Result<LeaseState*> acquire(const std::string& url, const SiteOptions& site,
                                                   const LeaseOptions& options);
  ~LeaseState();
  LeaseState(const LeaseState&) = delete;
  LeaseState& operator=(const LeaseState&) = delete;

  // Set-up: lease_state.cpp. The user's thread.

  [[nodiscard]] Status release();
  [[nodiscard]] Result<Buffer> allocate(std::size_t bytes);
  [[nodiscard]] std::vector<WorkerStatus> workers();
  [[nodiscard]] LeaseCounters counters();
  /// The Lease is gone; the last Buffer or Future deletes the state.
  void abandon() noexcept;
  void retain() noexcept { ++references_; }
  void let_go() noexcept;

  // Data path: lease_datapath.cpp. The user's thread.

  [[nodiscard]] Result<Future> submit(const Buffer& input, std::size_t input_bytes, Buffer& output,
                                      const CallOptions& options) noexcept;
  void poll() noexcept;
  [[nodiscard]] bool ready(client::CallHandle handle) noexcept;
  [[nodiscard]] Result<std::size_t> wait(client::CallHandle handle) noexcept;
  void cancel(client::CallHandle handle) noexcept;
  void forget(client::CallHandle handle) noexcept;
  void drop(std::uint32_t block) noexcept;

  /// One round of progress. Under ownership.
  void step(TimePoint now, bool all) noexcept;

  LeaseState(const LeaseOptions& options, memory::Region region, const client::RegionPlan& plan);

  // Constant after acquire().
  LeaseOptions options;
  memory::Region region;
  client::RegionPlan plan;
  std::uint64_t id = 0;
  std::string function_name;
  unsigned spins_before_yield = 0;  ///< 0: there is a core for each party that spins.
  client::Wakeup owner_wakeup;      ///< The user's thread sleeps on it.
  client::Wakeup keeper_wakeup;

  client::Ownership ownership;
  // Under ownership.
  client::Invocations calls;
  TimePoint expiry = TimePoint::max();  ///< By our clock, counted from when a renewal was sent.
  bool owner_asleep = false;
  bool keeper_told = false;  ///< Of lost workers.
  std::uint64_t replaced = 0;

 private:
  [[nodiscard]] bool arm() noexcept;
  void sleep(TimePoint until) noexcept;
  [[nodiscard]] Result<std::size_t> take(client::Call& call) noexcept;

  // Of the user's thread.
  std::vector<pollfd> sleep_set_;
  HotWindow hot_;
  unsigned polls_ = 0;
  std::size_t references_ = 0;
  bool abandoned_ = false;
  bool released_ = false;
  Status release_status_;
  std::string url_;
  std::chrono::milliseconds timeout_{0};
  std::unique_ptr<client::Keeper> keeper_;
};

}  // namespace sublet
