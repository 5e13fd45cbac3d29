#include "runtime/memory/arena.hpp"

#include <algorithm>
#include <iterator>
#include <string>

#include "runtime/base/assert.hpp"

namespace sublet::memory {

Arena::Arena(std::span<std::byte> memory) : memory_(memory) {
  SUBLET_ASSERT(reinterpret_cast<std::uintptr_t>(memory.data()) % alignment == 0);
  const std::size_t usable = memory.size() / alignment * alignment;
  if (usable > 0) add_free(0, usable);
}

Result<std::span<std::byte>> Arena::allocate(std::size_t bytes) {
  const bool possible = bytes <= memory_.size();
  const std::size_t rounded =
      (std::max(possible ? bytes : 0, std::size_t{1}) + alignment - 1) / alignment * alignment;
  const auto best = possible ? by_size_.lower_bound({rounded, 0}) : by_size_.end();
  if (best == by_size_.end()) {
    return Error(Errc::out_of_memory, std::to_string(bytes) + " bytes asked, the largest free block has " +
                                          std::to_string(largest_free_bytes()) +
                                          "; free buffers or open a larger arena");
  }
  const auto [size, offset] = *best;
  remove_free(free_.find(offset));
  if (size > rounded) add_free(offset + rounded, size - rounded);
  used_[offset] = rounded;
  return memory_.subspan(offset, bytes);
}

Status Arena::free(const std::byte* block) {
  const auto address = reinterpret_cast<std::uintptr_t>(block);
  const auto begin = reinterpret_cast<std::uintptr_t>(memory_.data());
  const auto found = address < begin ? used_.end() : used_.find(address - begin);
  if (found == used_.end()) return Error(Errc::invalid_argument, "no block of this arena begins there");
  std::size_t offset = found->first;
  std::size_t bytes = found->second;
  used_.erase(found);
  const auto after = free_.find(offset + bytes);
  if (after != free_.end()) {
    bytes += after->second;
    remove_free(after);
  }
  auto before = free_.lower_bound(offset);
  if (before != free_.begin() && std::prev(before)->first + std::prev(before)->second == offset) {
    before = std::prev(before);
    offset = before->first;
    bytes += before->second;
    remove_free(before);
  }
  add_free(offset, bytes);
  return {};
}

std::size_t Arena::largest_free_bytes() const noexcept {
  return by_size_.empty() ? 0 : by_size_.rbegin()->first;
}

void Arena::add_free(std::size_t offset, std::size_t bytes) {
  free_[offset] = bytes;
  by_size_.insert({bytes, offset});
  free_bytes_ += bytes;
}

void Arena::remove_free(Free::iterator block) {
  SUBLET_ASSERT(block != free_.end());
  free_bytes_ -= block->second;
  by_size_.erase({block->second, block->first});
  free_.erase(block);
}

}  // namespace sublet::memory
