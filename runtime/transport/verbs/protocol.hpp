#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "runtime/base/limits.hpp"

/// What two verbs transports say to each other beside the caller's data. Little-endian without padding.
namespace sublet::transport::verbs {

inline constexpr std::size_t regions_max = 8;  ///< Registered with one transport.
inline constexpr std::size_t last_words_max = 64;

/// How a side of a connection is reached. The acceptor's rides in the acceptance before the caller's
/// private data; the connector's is its first write, into the acceptor's control block. A region's key
/// in the interface is a random number; here is what the device of this connection calls it.
struct Introduction {
  static constexpr std::uint32_t magic_value = 0x31494253;  ///< "SBI1"
  std::uint32_t magic = magic_value;
  std::uint16_t private_bytes = 0;
  std::uint16_t regions = 0;
  std::uint64_t control_base = 0;
  std::uint32_t control_key = 0;
  std::uint32_t receives = 0;  ///< Posted: how many arrivals the peer may raise before it is told of more.
  std::array<std::uint64_t, regions_max> keys{};
  std::array<std::uint32_t, regions_max> device_keys{};
};
static_assert(sizeof(Introduction) == 120 && std::is_trivially_copyable_v<Introduction>);
static_assert(offsetof(Introduction, control_base) == 8 && offsetof(Introduction, control_key) == 16 &&
              offsetof(Introduction, keys) == 24 && offsetof(Introduction, device_keys) == 88);

/// The connection manager carries this much in an acceptance of a reliable connection.
inline constexpr std::size_t manager_accept_bytes = 196;
static_assert(sizeof(Introduction) + limits::accept_private_bytes <= manager_accept_bytes);

/// What a side leaves behind. The last words are written whole; a bye leaves the text alone.
struct Farewell {
  enum Kind : std::uint64_t { none = 0, last_words = 1, bye = 2 };
  std::array<std::byte, last_words_max> text{};
  std::uint64_t text_bytes = 0;
  std::uint64_t announced = 0;  ///< Arrivals that it raised at its peer in all.
  std::uint64_t kind = none;    ///< Lies last, so that it is there when the rest is.
};
static_assert(sizeof(Farewell) == 88 && offsetof(Farewell, announced) == 72);
inline constexpr std::size_t bye_offset = offsetof(Farewell, announced);

/// The memory that a connection's two service threads share by writing into each other's: `in` is the
/// peer's to write, `out` is where own writes come from. Hostile until checked.
struct ControlBlock {
  struct Half {
    alignas(64) std::uint64_t beat = 0;     ///< Counts on while the writer's service thread lives.
    alignas(64) std::uint64_t granted = 0;  ///< Arrivals that the reader may raise in all.
    alignas(64) Introduction introduction;
    alignas(64) Farewell farewell;
  };
  Half in;
  Half out;
};
static_assert(std::is_trivially_copyable_v<ControlBlock>);

/// What a work request carries to its completion. The owner's writes are numbered from 1 and complete in
/// order; a heartbeat goes beside them and has no number.
struct WorkId {
  std::uint64_t number = 0;
  [[nodiscard]] constexpr std::uint64_t pack() const noexcept { return number; }
  [[nodiscard]] static constexpr WorkId unpack(std::uint64_t packed) noexcept { return {packed}; }
  [[nodiscard]] constexpr bool is_beat() const noexcept { return number == 0; }
};

}  // namespace sublet::transport::verbs
