#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

/// What crosses a gate: bounded frames on a stream socket, little-endian, a FrameHeader and its body.
namespace sublet::transport::gate {

enum class FrameType : std::uint16_t {
  hello = 1,       ///< HandshakeFront, private data, backend part. First frame of the connecting side.
  accept = 2,      ///< The same, of the accepting side.
  refuse = 3,      ///< The refusal's private data, then the end.
  ping = 4,        ///< Empty; each side sends one every heartbeat_interval.
  last_words = 5,  ///< Announced, then at most last_words_max bytes: the peer is dying.
  bye = 6,         ///< Announced: the peer closes.
};

inline constexpr std::uint32_t frame_magic = 0x31474253;  ///< "SBG1"
inline constexpr std::size_t body_bytes_max = 512;
inline constexpr std::size_t last_words_max = 64;
inline constexpr std::size_t descriptors_max = 24;  ///< Files that travel with one handshake frame.

struct FrameHeader {
  std::uint32_t magic = frame_magic;
  std::uint16_t type = 0;
  std::uint16_t length = 0;  ///< Of the body.
};
static_assert(sizeof(FrameHeader) == 8 && std::is_trivially_copyable_v<FrameHeader>);

/// The begin of a hello's and an accept's body.
struct HandshakeFront {
  std::uint16_t private_bytes = 0;
  std::uint16_t backend_bytes = 0;
};
static_assert(sizeof(HandshakeFront) == 4);

/// How many arrivals a connection has raised at its peer in all: what the peer may still wait for.
struct Announced {
  std::uint64_t arrivals = 0;
};

/// Sends one frame without waiting. Async-signal-safe without descriptors. Frames of at most a few
/// dozen bytes may be sent by several threads: the kernel keeps each whole.
/// @return false when the socket did not take it wholly; a frame cut in the middle ends the socket.
bool send_frame(int socket, FrameType type, std::span<const std::span<const std::byte>> pieces,
                std::span<const int> descriptors = {}) noexcept;

}  // namespace sublet::transport::gate
