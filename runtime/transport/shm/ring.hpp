#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "runtime/base/limits.hpp"

/// One direction of a connection in memory that two processes share: a ring with one writer and one
/// reader. The other side may be hostile: nothing read here is trusted beyond its own meaning, and no
/// number read here becomes an index.
namespace sublet::transport::shm {

inline constexpr std::uint32_t ring_entries = 4096;
static_assert((ring_entries & (ring_entries - 1)) == 0);
static_assert(ring_entries >= limits::slots_max, "every slot of a connection may be in flight");

struct RingEntry {
  std::atomic<std::uint32_t> ticket{0};  ///< Place in the stream plus 1 once the rest is written.
  std::uint32_t word = 0;
  std::uint64_t length = 0;
};
static_assert(sizeof(RingEntry) == 16 && std::atomic<std::uint32_t>::is_always_lock_free);

struct Ring {
  alignas(64) std::atomic<std::uint32_t> head{0};     ///< What the reader has taken.
  alignas(64) std::atomic<std::uint32_t> armed{0};    ///< The reader wants its doorbell rung.
  std::atomic<std::uint32_t> closed{0};               ///< The reader's memory is no longer to be written.
  alignas(64) std::atomic<std::uint32_t> writing{0};  ///< The writer is in the reader's memory.
  alignas(64) std::array<RingEntry, ring_entries> entries;
};
static_assert(sizeof(Ring) == 192 + sizeof(RingEntry) * ring_entries);

struct ControlBlock {
  Ring to_acceptor;
  Ring to_connector;
};

/// The writer's end. Owner thread.
class RingWriter {
 public:
  explicit RingWriter(Ring& ring) noexcept : ring_(&ring) {}

  [[nodiscard]] bool full() noexcept {
    if (tail_ - head_ < ring_entries) return false;
    head_ = ring_->head.load(std::memory_order_acquire);
    // A head that is no place between is a hostile reader's: it harms its own queue alone.
    return tail_ - head_ >= ring_entries;
  }
  /// Before the reader's memory is written. False when the reader has closed: do not.
  [[nodiscard]] bool enter() noexcept {
    // Pairs with shut(): one of the two sees the other.
    ring_->writing.store(1, std::memory_order_seq_cst);
    if (ring_->closed.load(std::memory_order_seq_cst) == 0) [[likely]]
      return true;
    leave();
    return false;
  }
  void leave() noexcept { ring_->writing.store(0, std::memory_order_release); }

  /// After full() was false. What the caller wrote before is visible to the reader with the entry.
  /// @return true when the reader sleeps: ring its doorbell.
  [[nodiscard]] bool push(std::uint32_t word, std::uint64_t length) noexcept {
    RingEntry& entry = ring_->entries[tail_ % ring_entries];
    entry.word = word;
    entry.length = length;
    ++tail_;
    // This store and the look at `armed` pair with the reader's store to `armed` and look at the
    // ticket, all four sequentially consistent: one of the two sees the other.
    entry.ticket.store(tail_, std::memory_order_seq_cst);
    return ring_->armed.load(std::memory_order_seq_cst) != 0 &&
           ring_->armed.exchange(0, std::memory_order_relaxed) != 0;
  }

 private:
  Ring* ring_;
  std::uint32_t tail_ = 0;
  std::uint32_t head_ = 0;  ///< As last seen.
};

/// The reader's end. Owner thread.
class RingReader {
 public:
  explicit RingReader(Ring& ring) noexcept : ring_(&ring) {}

  struct Item {
    std::uint32_t word = 0;
    std::uint64_t length = 0;
  };
  [[nodiscard]] std::optional<Item> pop() noexcept {
    const RingEntry& entry = ring_->entries[head_ % ring_entries];
    if (entry.ticket.load(std::memory_order_acquire) != head_ + 1) return std::nullopt;
    ++head_;
    return Item{entry.word, entry.length};
  }
  /// Gives the popped places back to the writer: once a batch.
  void publish() noexcept { ring_->head.store(head_, std::memory_order_release); }

  /// No write of the peer begins after this; one that is under way has ended when it returns true.
  [[nodiscard]] bool shut() noexcept {
    ring_->closed.store(1, std::memory_order_seq_cst);
    return ring_->writing.load(std::memory_order_seq_cst) == 0;
  }

  void arm() noexcept { ring_->armed.store(1, std::memory_order_seq_cst); }
  void disarm() noexcept { ring_->armed.store(0, std::memory_order_relaxed); }
  [[nodiscard]] bool empty_ordered() const noexcept {
    return ring_->entries[head_ % ring_entries].ticket.load(std::memory_order_seq_cst) != head_ + 1;
  }

 private:
  Ring* ring_;
  std::uint32_t head_ = 0;
};

}  // namespace sublet::transport::shm
