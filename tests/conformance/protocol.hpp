#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/transport/transport.hpp"

/// What the suite and its peer program agree on.
namespace conformance {

inline constexpr std::size_t region_bytes = std::size_t{8} << 20;
inline constexpr std::size_t slot_bytes = std::size_t{64} << 10;  ///< An echo's slot; a longer one overlaps.
inline constexpr std::uint32_t slots = region_bytes / slot_bytes;

/// The word of a write to the peer: kind in the top byte, slot in the next, a number below.
enum class Kind : std::uint8_t {
  echo = 1,    ///< Write the same bytes and word back, to reply_slot().
  sum,         ///< Write the digest of the region's first `length` bytes back, as an echo of 8 bytes.
  sum_all,     ///< The same of the first unwritten_bytes, whatever the length.
  fill,        ///< Write a whole region of pattern `number` back, to its begin, with the same word.
  stall,       ///< Do not poll for `number` milliseconds.
  flood,       ///< Write for ever.
  last_words,  ///< Say "farewell" and die of SIGKILL.
  close,       ///< Write `number` words numbered from 0, then close.
};

constexpr std::uint32_t pack(Kind kind, std::uint32_t slot, std::uint32_t number) noexcept {
  return static_cast<std::uint32_t>(kind) << 24U | slot << 16U | number;
}
constexpr Kind kind_of(std::uint32_t word) noexcept {
  return static_cast<Kind>(word >> 24U);
}
constexpr std::uint32_t slot_of(std::uint32_t word) noexcept {
  return word >> 16U & 0xFFU;
}
constexpr std::uint32_t number_of(std::uint32_t word) noexcept {
  return word & 0xFFFFU;
}
static_assert(slots <= 256);
/// Behind it the peer keeps digests that it sends.
inline constexpr std::size_t unwritten_bytes = region_bytes - 4096;
/// An answer lies apart from what it answers, or an echo that never came would look right.
constexpr std::uint32_t reply_slot(std::uint32_t slot) noexcept {
  return (slot + slots / 2) % slots;
}

/// A byte of a pattern that differs with place and seed.
constexpr std::byte pattern(std::size_t index, std::uint32_t seed) noexcept {
  return static_cast<std::byte>((index * 31 + seed * 131 + (index >> 8U) * 7) & 0xFFU);
}
inline std::uint64_t digest(std::span<const std::byte> bytes) noexcept {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const std::byte byte : bytes) hash = (hash ^ std::to_integer<std::uint64_t>(byte)) * 0x100000001B3U;
  return hash;
}

/// A timing that makes silence a matter of a second, also on a busy machine.
inline constexpr sublet::transport::Timing quick{
    std::chrono::milliseconds(100), std::chrono::milliseconds(1200), std::chrono::milliseconds(500)};

}  // namespace conformance
