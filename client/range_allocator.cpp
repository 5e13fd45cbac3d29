#include "client/range_allocator.hpp"

#include <algorithm>

#include "runtime/base/assert.hpp"

namespace sublet::client {

void RangeAllocator::reset(std::size_t offset, std::size_t bytes, std::size_t pieces_expected) {
  begin_ = (offset + granule - 1) / granule * granule;
  end_ = std::max(begin_, (offset + bytes) / granule * granule);
  pieces_.clear();
  pieces_.reserve(pieces_expected);
}

std::optional<std::size_t> RangeAllocator::take(std::size_t bytes) {
  if (bytes > size_bytes()) return std::nullopt;
  const std::size_t rounded = std::max<std::size_t>(1, (bytes + granule - 1) / granule) * granule;
  std::size_t begin = begin_;
  auto next = pieces_.begin();
  while (next != pieces_.end() && next->begin - begin < rounded) {
    begin = next->end;
    ++next;
  }
  if (end_ - begin < rounded) return std::nullopt;
  pieces_.insert(next, Piece{begin, begin + rounded});
  return begin;
}

void RangeAllocator::give_back(std::size_t offset) noexcept {
  const auto piece =
      std::lower_bound(pieces_.begin(), pieces_.end(), offset,
                       [](const Piece& held, std::size_t begin) { return held.begin < begin; });
  SUBLET_ASSERT(piece != pieces_.end() && piece->begin == offset);
  pieces_.erase(piece);
}

}  // namespace sublet::client
