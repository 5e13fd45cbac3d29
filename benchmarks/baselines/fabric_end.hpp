#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "benchmarks/baselines/baseline.hpp"
#include "benchmarks/baselines/peer.hpp"
#include "runtime/transport/fabric/library.hpp"

namespace sublet::bench {

using transport::fabric::Handle;
using transport::fabric::Info;
using transport::fabric::Library;

/// One end of a pair over a libfabric provider: its objects, its memory, and the two things that an echo
/// does, a write with data and a wait for the other end's. Set up by the baseline that it belongs to.
class FabricEnd {
  std::size_t stride_;
  std::uint32_t window_max_;
  std::vector<std::byte> room_;  // Outlives what writes into it.

 public:
  const Library* library = nullptr;
  Handle<fid_fabric> fabric;
  Handle<fid_domain> domain;
  Handle<fid_eq> events;  ///< Connected endpoints only.
  Handle<fid_av> peers;   ///< Unconnected ones only.
  Handle<fid_cq> completions;
  Handle<fid_mr> memory;
  Handle<fid_ep> endpoint;
  fi_addr_t peer = FI_ADDR_UNSPEC;
  std::size_t inject_bytes = 0;
  int descriptor = -1;  ///< Of the queue; -1: it has none.

  struct Remote {
    std::uint64_t base = 0;
    std::uint64_t key = 0;
  };
  Remote remote;

  explicit FabricEnd(const BaselineShape& shape);

  /// Opens fabric and domain, and registers the memory. Each of these throws std::runtime_error.
  void open_domain(fi_info& info);
  void open_completions(fi_wait_obj wait);
  void open_endpoint(fi_info& info, fid& binds);
  [[noreturn]] void fail(const char* call, long code) const;
  void check(const char* call, long code) const {
    if (code != 0) fail(call, code);
  }

  [[nodiscard]] Remote own_memory() const;
  [[nodiscard]] std::byte* incoming(std::uint32_t slot) noexcept { return room_.data() + slot * stride_; }
  /// One for all messages, as calls may share their input.
  [[nodiscard]] std::byte* outgoing() noexcept { return incoming(window_max_); }

  /// Writes into the other end's incoming(slot) and tells it `slot`. A function of its own, entered once a
  /// message: `sublet-bench anatomy` looks for it.
  [[gnu::noinline]] void write(const std::byte* data, std::size_t bytes, std::uint32_t slot);
  /// The same, and polls until this write and all before it have left: what is under way when an end stops
  /// polling stays where it is.
  void write_last(const std::byte* data, std::size_t bytes, std::uint32_t slot,
                  std::chrono::microseconds hot);
  /// The slot of the next write that has come.
  [[nodiscard]] std::uint32_t wait(std::chrono::microseconds hot);

 private:
  [[nodiscard]] bool poll();
  void sleep();

  std::uint64_t base_ = 0;               ///< Of our memory, as the other end must name it.
  std::vector<std::uint32_t> arrivals_;  ///< Slots that have come, a ring of window_max_ places.
  std::uint32_t arrived_ = 0;
  std::uint32_t taken_ = 0;
  bool left_ = false;  ///< The write that was to be told of has left.
};

}  // namespace sublet::bench
