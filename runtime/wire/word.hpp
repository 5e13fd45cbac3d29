#pragma once

#include <cstdint>

#include "runtime/base/limits.hpp"

/// The 32-bit immediate that arrives with each remote write, in both directions:
/// kind in bits 28..31, slot in bits 16..27, generation in bits 0..15.
namespace sublet::wire {

/// Client to worker.
enum class RequestKind : std::uint8_t {
  invoke = 1,        ///< Header and payload were written to the slot.
  invoke_again = 2,  ///< Only the payload was written; the slot's header of before holds.
  attach = 3,        ///< Attach was written to the control area: first word on a connection.
  renew = 4,         ///< Renewal was written to the control area.
  cancel = 5,        ///< Do not start slot/generation if it has not started.
  goodbye = 6,       ///< The client has finished; the worker ends its lease's connection.
};

/// Worker to client.
enum class ReplyKind : std::uint8_t {
  ok = 1,               ///< The arrival's length is the output's size; it lies at the header's output_offset.
  function_failed = 2,  ///< As all below: the arrival's length is the message's, in the slot's message area.
  not_started = 3,
  deadline_exceeded = 4,
  cancelled = 5,
  refused = 6,   ///< The header was out of range; nothing ran. Errc::invalid_argument at the client.
  draining = 7,  ///< No slot: send no more calls; those sent end with a reply.
};

struct Word {
  std::uint8_t kind = 0;         ///< RequestKind or ReplyKind; 4 bits.
  std::uint16_t slot = 0;        ///< 12 bits.
  std::uint16_t generation = 0;  ///< A slot's counter: a duplicate or late arrival is told by it.

  [[nodiscard]] constexpr std::uint32_t pack() const noexcept {
    return (std::uint32_t{kind} & 0xFU) << 28U | (std::uint32_t{slot} & 0xFFFU) << 16U | generation;
  }
  [[nodiscard]] static constexpr Word unpack(std::uint32_t word) noexcept {
    return {static_cast<std::uint8_t>(word >> 28U), static_cast<std::uint16_t>(word >> 16U & 0xFFFU),
            static_cast<std::uint16_t>(word & 0xFFFFU)};
  }
  friend constexpr bool operator==(const Word&, const Word&) = default;
};

static_assert(limits::slots_max == 0x1000, "a slot is 12 bits of the word");

}  // namespace sublet::wire
