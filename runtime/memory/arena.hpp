#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <utility>

#include "runtime/base/result.hpp"
#include "runtime/memory/region.hpp"

namespace sublet::memory {

/// Hands out 64-byte-aligned blocks of memory that it does not own, such as a registered Region. Best
/// fit, free neighbours are joined: allocate and free take O(log n). Its books lie outside the memory,
/// so a peer that writes there cannot damage them.
///
/// Thread safety: none. Not on the invocation path: the books allocate.
class Arena {
 public:
  static constexpr std::size_t alignment = 64;

  /// @param memory Aligned to `alignment`; outlives the arena.
  explicit Arena(std::span<std::byte> memory);
  explicit Arena(const Region& region) : Arena(region.bytes()) {}

  /// @param bytes 0 gives a block of `alignment` bytes, so that every block has an address of its own.
  /// @retval Errc::out_of_memory The largest free block is smaller; the message says how large it is.
  [[nodiscard]] Result<std::span<std::byte>> allocate(std::size_t bytes);
  /// @retval Errc::invalid_argument No block begins there: freed twice or foreign.
  Status free(const std::byte* block);

  [[nodiscard]] std::size_t free_bytes() const noexcept { return free_bytes_; }
  [[nodiscard]] std::size_t largest_free_bytes() const noexcept;
  [[nodiscard]] std::size_t blocks() const noexcept { return used_.size(); }

 private:
  using Free = std::map<std::size_t, std::size_t>;  ///< Offset to bytes.
  void add_free(std::size_t offset, std::size_t bytes);
  void remove_free(Free::iterator block);

  std::span<std::byte> memory_;
  std::size_t free_bytes_ = 0;
  Free free_;
  std::set<std::pair<std::size_t, std::size_t>> by_size_;  ///< Bytes, offset.
  std::map<std::size_t, std::size_t> used_;                ///< Offset to bytes.
};

}  // namespace sublet::memory
