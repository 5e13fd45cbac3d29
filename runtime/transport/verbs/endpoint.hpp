#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/result.hpp"
#include "runtime/memory/region.hpp"
#include "runtime/transport/verbs/device.hpp"
#include "runtime/transport/verbs/handle.hpp"
#include "runtime/transport/verbs/protocol.hpp"

namespace sublet::transport::verbs {

/// One queue pair and all that it needs, held by its owner thread and by the service thread through a
/// shared_ptr. The owner ends the queue pair (shut()); whoever lets go last releases the rest.
///
/// Both threads post to the queue pair, which libibverbs allows; each has entries of the send queue of
/// its own. No lock: the service thread publishes the end once, by `cause_`.
class Endpoint {
 public:
  /// @param channel Of `id`. Outlives it.
  [[nodiscard]] static Result<std::shared_ptr<Endpoint>> make(std::shared_ptr<Device> device,
                                                              std::shared_ptr<rdma_event_channel> channel,
                                                              CmId id);
  ~Endpoint();
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;

  // Set-up. Service thread.

  /// Moves the queue pair on, as the connection manager says, with every timeout set by us.
  [[nodiscard]] Status to_state(ibv_qp_state state) noexcept;
  [[nodiscard]] Introduction introduction() const noexcept;
  /// Takes what the peer said of itself: hostile. False when it is not ours.
  [[nodiscard]] bool meet(const Introduction& peer) noexcept;
  /// Writes our introduction into the acceptor's control block, as the first arrival.
  [[nodiscard]] Status greet() noexcept;
  /// Looks whether the connector's greeting has arrived, and meets it. queue_full: not yet.
  [[nodiscard]] Status hear_greeting() noexcept;
  [[nodiscard]] rdma_cm_id* id() const noexcept { return id_.get(); }
  [[nodiscard]] const Device& device() const noexcept { return *device_; }

  // Owner thread.

  /// Also from a service thread that has set it up.
  [[nodiscard]] ibv_qp* queue_pair() const noexcept { return queue_pair_.get(); }
  [[nodiscard]] ibv_cq* arrivals() const noexcept { return arrivals_.get(); }
  [[nodiscard]] std::uint32_t peer_receives() const noexcept { return peer_.receives; }
  /// The device's name for a region of the peer; false when the peer has no such region.
  [[nodiscard]] bool find_remote(std::uint64_t key, std::uint32_t& device_key) const noexcept {
    for (std::size_t i = 0; i < peer_.regions; ++i) {
      if (peer_.keys[i] != key) continue;
      device_key = peer_.device_keys[i];
      return true;
    }
    return false;
  }
  [[nodiscard]] std::uint64_t granted() const noexcept;
  /// @param number Of the write that this is, in the owner's count.
  [[nodiscard]] bool tell_granted(std::uint64_t arrivals, std::uint64_t number) noexcept;
  [[nodiscard]] bool say_bye(std::uint64_t announced, std::uint64_t number) noexcept;
  void post_receives(std::uint32_t count) noexcept;
  /// Takes what the send queue has completed. Any of the two threads; the second at a time finds nothing.
  void reap() noexcept;
  [[nodiscard]] std::uint64_t completed() const noexcept {
    return completed_.load(std::memory_order_acquire);
  }
  [[nodiscard]] bool broken() const noexcept { return broken_.load(std::memory_order_acquire); }
  /// Arms both queues and drops what woke us last.
  void arm(bool sends_too) noexcept;
  [[nodiscard]] int descriptor() const noexcept { return watch_.get(); }
  /// 0 while the connection is up.
  [[nodiscard]] std::uint32_t cause() const noexcept { return cause_.load(std::memory_order_acquire); }
  /// For the last look before a sleep: ordered with the arming of the queue.
  [[nodiscard]] bool up_ordered() const noexcept { return cause_.load(std::memory_order_seq_cst) == 0; }
  /// What the peer has left; in order only when nothing can land any more or `kind` is set.
  [[nodiscard]] const Farewell& farewell() const noexcept { return control().in.farewell; }
  [[nodiscard]] bool peer_said_bye() const noexcept;
  void count_arrivals(std::uint64_t total) noexcept {
    arrivals_seen_.store(total, std::memory_order_relaxed);
  }
  void count_announced(std::uint64_t total) noexcept { announced_.store(total, std::memory_order_relaxed); }
  /// Around each posting: a crash handler that interrupts it must not post.
  void set_posting(bool posting) noexcept {
    posting_.store(posting, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  /// Tells the peer's connection manager and ends the queue pair: nothing lands or is posted afterwards.
  void shut() noexcept;

  // Any thread, also a signal handler.
  void say_last_words(std::span<const std::byte> message) noexcept;

  // Service thread.

  void set_down(Errc cause) noexcept;
  /// Posts a heartbeat.
  void beat() noexcept;
  /// Changes while the peer is heard: its heartbeats, and what arrives of it, behind much of which a
  /// heartbeat may have to wait.
  [[nodiscard]] std::uint64_t peer_beat() const noexcept;
  [[nodiscard]] bool is_shut() const noexcept { return shut_.load(std::memory_order_acquire); }
  [[nodiscard]] std::uint32_t queue_pair_number() const noexcept { return number_; }

 private:
  Endpoint(std::shared_ptr<Device> device, std::shared_ptr<rdma_event_channel> channel, CmId id) noexcept
      : device_(std::move(device)), channel_(std::move(channel)), id_(std::move(id)) {}
  [[nodiscard]] Status make_queues();
  [[nodiscard]] ControlBlock& control() const noexcept {
    return *reinterpret_cast<ControlBlock*>(memory_.data());
  }
  /// Writes a part of the own half of the control block to where the peer keeps it.
  [[nodiscard]] bool post_control(const void* part, std::size_t bytes, WorkId work, int flags,
                                  ibv_wr_opcode opcode = IBV_WR_RDMA_WRITE) noexcept;
  /// Keeps the queue pair there while it is being posted to beside the owner.
  class Visit;

  std::shared_ptr<Device> device_;
  std::shared_ptr<rdma_event_channel> channel_;
  CmId id_;
  memory::Region memory_;
  FileDescriptor wake_;
  FileDescriptor watch_;
  MemoryRegion control_region_;
  CompletionChannel completion_channel_;
  CompletionQueue sends_;
  CompletionQueue arrivals_;
  QueuePair queue_pair_;
  std::uint32_t number_ = 0;
  std::uint32_t inline_bytes_ = 0;
  Introduction peer_;

  bool armed_ = false;
  bool sends_armed_ = false;
  unsigned arrivals_events_ = 0;
  unsigned sends_events_ = 0;

  std::atomic<std::uint32_t> cause_{0};
  std::atomic<bool> open_{true};
  std::atomic<int> visitors_{0};
  std::atomic<bool> shut_{false};
  std::atomic<bool> posting_{false};
  std::atomic<bool> broken_{false};
  std::atomic<bool> said_last_words_{false};
  std::atomic<std::uint64_t> announced_{0};
  std::atomic<std::uint64_t> arrivals_seen_{0};
  std::atomic<std::uint64_t> completed_{0};
  std::atomic<std::uint32_t> beats_completed_{0};
  std::atomic_flag reaping_;
  std::uint32_t beats_posted_ = 0;
};

}  // namespace sublet::transport::verbs
