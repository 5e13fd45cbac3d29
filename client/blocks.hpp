#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "client/range_allocator.hpp"

namespace sublet::client {

/// The user's buffers in the lease's region. A block goes back to the range when its handle has been
/// dropped and no call or slot holds it: a worker may write into an output until its slot is free.
class Blocks {
 public:
  Blocks(std::size_t offset, std::size_t bytes) { range_.reset(offset, bytes, 0); }

  struct Allocated {
    std::uint32_t block = 0;
    std::size_t offset = 0;
  };
  [[nodiscard]] std::optional<Allocated> allocate(std::size_t bytes);
  /// The user's handle is gone.
  void drop(std::uint32_t block) noexcept;

  /// Several calls may read one input; an output belongs to one call.
  [[nodiscard]] bool readable(std::uint32_t block) const noexcept { return blocks_[block].writers == 0; }
  [[nodiscard]] bool writable(std::uint32_t block) const noexcept {
    return blocks_[block].writers == 0 && blocks_[block].readers == 0;
  }
  void hold(std::uint32_t input, std::uint32_t output) noexcept {
    ++blocks_[input].readers;
    ++blocks_[output].writers;
  }
  void let_go(std::uint32_t input, std::uint32_t output) noexcept;

  [[nodiscard]] std::size_t live() const noexcept { return range_.pieces(); }

 private:
  struct Block {
    std::size_t offset = 0;
    std::uint32_t readers = 0;
    std::uint32_t writers = 0;
    bool dropped = false;
  };
  void free_when_idle(std::uint32_t block) noexcept;

  RangeAllocator range_;
  std::vector<Block> blocks_;
  std::vector<std::uint32_t> free_;
};

}  // namespace sublet::client
