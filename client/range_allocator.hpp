#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace sublet::client {

/// Hands out pieces of a range of offsets, first fit, in multiples of `granule`. Bookkeeping lies beside
/// the range, never in it: the range may be a peer's memory.
class RangeAllocator {
 public:
  static constexpr std::size_t granule = 64;

  /// @param pieces_expected take() does not allocate memory while no more pieces are held.
  void reset(std::size_t offset, std::size_t bytes, std::size_t pieces_expected);

  /// The offset of a piece, or nothing when no gap fits. A piece of 0 bytes takes one granule.
  [[nodiscard]] std::optional<std::size_t> take(std::size_t bytes);
  /// @param offset From take(), not given back yet.
  void give_back(std::size_t offset) noexcept;

  [[nodiscard]] std::size_t size_bytes() const noexcept { return end_ - begin_; }
  [[nodiscard]] std::size_t pieces() const noexcept { return pieces_.size(); }

 private:
  struct Piece {
    std::size_t begin = 0;
    std::size_t end = 0;
  };
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::vector<Piece> pieces_;  // By offset.
};

}  // namespace sublet::client
