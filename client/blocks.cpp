#include "client/blocks.hpp"

#include "runtime/base/assert.hpp"

namespace sublet::client {

std::optional<Blocks::Allocated> Blocks::allocate(std::size_t bytes) {
  const auto offset = range_.take(bytes);
  if (!offset) return std::nullopt;
  if (free_.empty()) {
    free_.push_back(static_cast<std::uint32_t>(blocks_.size()));
    blocks_.emplace_back();
    free_.reserve(blocks_.size());  // free_when_idle() must not allocate.
  }
  const std::uint32_t block = free_.back();
  free_.pop_back();
  blocks_[block] = Block{*offset, 0, 0, false};
  return Allocated{block, *offset};
}

void Blocks::drop(std::uint32_t block) noexcept {
  SUBLET_ASSERT(block < blocks_.size() && !blocks_[block].dropped);
  blocks_[block].dropped = true;
  free_when_idle(block);
}

void Blocks::let_go(std::uint32_t input, std::uint32_t output) noexcept {
  SUBLET_ASSERT(blocks_[input].readers > 0 && blocks_[output].writers > 0);
  --blocks_[input].readers;
  --blocks_[output].writers;
  free_when_idle(input);
  free_when_idle(output);
}

void Blocks::free_when_idle(std::uint32_t block) noexcept {
  const Block& state = blocks_[block];
  if (!state.dropped || state.readers != 0 || state.writers != 0) return;
  range_.give_back(state.offset);
  free_.push_back(block);
}

}  // namespace sublet::client
