#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace sublet::worker {

/// Where functions write their outputs before they are sent: one stage a slot for outputs up to the
/// slot's size, and behind them a ring for larger ones. A stage is free again when the next request for
/// its slot arrives (the client sends it after the reply); a ring piece when its write was `sent`. A result
/// that lies in its input needs neither: the client writes there again only after the reply.
class OutputBuffers {
 public:
  OutputBuffers() noexcept = default;
  OutputBuffers(std::size_t region_bytes, std::uint32_t slots, std::size_t slot_bytes) noexcept
      : slot_bytes_(slot_bytes),
        ring_offset_(slots * slot_bytes),
        ring_bytes_(region_bytes - slots * slot_bytes) {}

  /// Largest output that one call may have.
  [[nodiscard]] std::size_t largest() const noexcept {
    return ring_bytes_ > slot_bytes_ ? ring_bytes_ : slot_bytes_;
  }
  [[nodiscard]] bool fits_stage(std::size_t bytes) const noexcept { return bytes <= slot_bytes_; }
  [[nodiscard]] std::size_t stage(std::uint32_t slot) const noexcept { return slot * slot_bytes_; }

  struct Piece {
    std::size_t offset = 0;   ///< In the output region.
    std::uint64_t begin = 0;  ///< Position in the ring, ever growing.
  };
  /// A contiguous piece of the ring, or nothing until earlier ones are released.
  [[nodiscard]] std::optional<Piece> reserve(std::size_t bytes) noexcept {
    if (ring_bytes_ == 0) return std::nullopt;
    if (head_ == tail_)
      head_ = tail_ = (head_ + ring_bytes_ - 1) / ring_bytes_ * ring_bytes_;  // Empty: take all of it.
    std::uint64_t begin = head_;
    const std::size_t at = begin % ring_bytes_;
    if (bytes > ring_bytes_) return std::nullopt;
    if (at + bytes > ring_bytes_) begin += ring_bytes_ - at;
    if (begin + bytes - tail_ > ring_bytes_) return std::nullopt;
    return Piece{ring_offset_ + begin % ring_bytes_, begin};
  }
  /// Takes the first `bytes` of a reserved piece; returns what release() gets when they were sent.
  [[nodiscard]] std::uint64_t commit(const Piece& piece, std::size_t bytes) noexcept {
    constexpr std::size_t line = 64;
    head_ = piece.begin + (bytes + line - 1) / line * line;
    return head_;
  }
  /// Everything before `position` may be written over. Writes are sent in order.
  void release(std::uint64_t position) noexcept { tail_ = position; }

 private:
  std::size_t slot_bytes_ = 0;
  std::size_t ring_offset_ = 0;
  std::size_t ring_bytes_ = 0;
  std::uint64_t head_ = 0;
  std::uint64_t tail_ = 0;
};

}  // namespace sublet::worker
