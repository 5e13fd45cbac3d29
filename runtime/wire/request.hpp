#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sublet::wire {

/// The header of one invocation, at offset `header_offset` of its slot, directly before the payload.
/// It stays in the slot: `invoke_again` sends the next payload without it.
struct RequestHeader {
  std::uint32_t entry = 0;            ///< Function in the module.
  std::uint32_t flags = 0;            ///< flag_* below; others are refused.
  std::uint64_t output_offset = 0;    ///< In the client's region.
  std::uint64_t output_capacity = 0;  ///< Bytes.
  std::uint64_t deadline_us = 0;      ///< From the arrival on; > 0.
  std::uint64_t input_offset = 0;  ///< With flag_large_input: in the worker's region, inside its large area,
  std::uint64_t input_bytes = 0;   ///< and its length; the slot then carries no payload. Else 0.
};
static_assert(sizeof(RequestHeader) == 48 && std::is_trivially_copyable_v<RequestHeader>);
static_assert(offsetof(RequestHeader, output_offset) == 8 && offsetof(RequestHeader, output_capacity) == 16 &&
              offsetof(RequestHeader, deadline_us) == 24 && offsetof(RequestHeader, input_offset) == 32 &&
              offsetof(RequestHeader, input_bytes) == 40);

inline constexpr std::uint32_t flag_large_input = 1;

/// What a worker says last when it ends without having answered all that was sent to it. Everything
/// that was sent after the named call has not started.
struct LastWords {
  static constexpr std::uint32_t magic_value = 0x5453414C;  // "LAST"
  static constexpr std::uint16_t no_slot = 0xFFFF;          ///< With signal 0: nothing was answered at all.
  std::uint32_t magic = magic_value;
  std::uint16_t slot = 0;  ///< The call that crashed, or with signal 0 the last one that was answered.
  std::uint16_t generation = 0;
  std::uint32_t signal = 0;
};
static_assert(sizeof(LastWords) == 12 && std::is_trivially_copyable_v<LastWords>);
static_assert(offsetof(LastWords, slot) == 4 && offsetof(LastWords, signal) == 8);

inline constexpr std::size_t header_offset = 16;
inline constexpr std::size_t payload_offset = 64;  ///< A payload starts on a cache line.
static_assert(header_offset + sizeof(RequestHeader) == payload_offset);

/// Payload that fits a slot.
[[nodiscard]] constexpr std::size_t slot_payload_bytes(std::size_t slot_bytes) noexcept {
  return slot_bytes - payload_offset;
}

}  // namespace sublet::wire
