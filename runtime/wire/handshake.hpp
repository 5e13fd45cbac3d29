#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "runtime/base/digest.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/base/result.hpp"

/// What the two sides say before the first call. All layouts are little-endian without padding;
/// docs/protocol.md is their reference.
namespace sublet::wire {

static_assert(std::endian::native == std::endian::little, "the wire is little-endian; add conversions first");

inline constexpr std::uint32_t magic = 0x544C4253;  // "SBLT"
inline constexpr std::uint16_t version = 1;

/// What a lease allows on one worker. Issued and signed by the manager, presented by the client,
/// checked by the worker alone.
struct Token {
  std::uint64_t lease = 0;
  std::uint64_t expiry_ms = 0;  ///< By the manager's clock, milliseconds.
  std::uint32_t worker = 0;     ///< The worker process, unique for the life of its node's registration.
  std::uint32_t tenant = 0;
  std::uint32_t function = 0;      ///< The manager's number of name@version.
  std::uint16_t cores = 0;         ///< For this worker.
  std::uint16_t memory_16mib = 0;  ///< For this worker, in units of 16 MiB; 0: the node's default.
  friend bool operator==(const Token&, const Token&) = default;
};
static_assert(sizeof(Token) == 32 && std::is_trivially_copyable_v<Token>);
static_assert(offsetof(Token, expiry_ms) == 8 && offsetof(Token, worker) == 16 &&
              offsetof(Token, tenant) == 20 && offsetof(Token, function) == 24 &&
              offsetof(Token, cores) == 28 && offsetof(Token, memory_16mib) == 30);

using Mac = std::array<std::byte, 16>;  ///< HMAC-SHA-256 over the token, cut to 128 bits.

/// The token and its proof: what a grant carries as 96 hexadecimal digits.
struct SignedToken {
  Token token;
  Mac mac{};
};
static_assert(sizeof(SignedToken) == 48);

/// The key of one worker process: all that a process that runs tenants' code may know of its node's key.
[[nodiscard]] SecretKey worker_key(const SecretKey& node_key, std::uint32_t worker);
/// Signs for the worker that the token names, under the key derived for it.
[[nodiscard]] Mac sign(const Token& token, const SecretKey& node_key);
/// @param key The worker's own, from worker_key().
[[nodiscard]] bool verify(const SignedToken& token, const SecretKey& key);
[[nodiscard]] std::string to_text(const SignedToken& token);
[[nodiscard]] Result<SignedToken> parse_token(std::string_view text);

/// Client to worker, in the private data of the connect request.
struct Hello {
  std::uint32_t magic = wire::magic;
  std::uint16_t version = wire::version;
  std::uint8_t slots_log2 = 0;  ///< The client owns the layout of the worker's input region:
  std::uint8_t slot_bytes_log2 =
      0;  ///< 2^slots_log2 slots of 2^slot_bytes_log2 bytes after the control area.
  SignedToken token;
};
static_assert(sizeof(Hello) == limits::connect_private_bytes && std::is_trivially_copyable_v<Hello>);
static_assert(offsetof(Hello, slots_log2) == 6 && offsetof(Hello, token) == 8);

/// Worker to client, in the private data of the acceptance.
struct Welcome {
  std::uint32_t magic = wire::magic;
  std::uint16_t version = wire::version;
  std::uint16_t reserved = 0;
  std::uint64_t region_base = 0;  ///< The input region: address, key and size as the transport names them.
  std::uint64_t region_key = 0;
  std::uint64_t region_bytes = 0;
  std::uint64_t output_bytes_max = 0;  ///< Largest output of one call.
  std::uint32_t entries = 0;           ///< Functions in the module, numbered from 0.
  std::uint32_t reserved2 = 0;
};
static_assert(sizeof(Welcome) == 48 && sizeof(Welcome) <= limits::accept_private_bytes);

/// Worker to client, in the private data of a rejection. `text` is not terminated.
struct Refusal {
  std::uint32_t magic = wire::magic;
  std::uint16_t code = 0;  ///< Errc.
  std::uint16_t text_bytes = 0;
  std::array<char, 128> text{};
};
static_assert(sizeof(Refusal) == 136 && sizeof(Refusal) <= limits::reject_private_bytes);

[[nodiscard]] Refusal refuse(const Error& error) noexcept;
/// The error that a refusal carries; protocol_error when it is not one of ours. Hostile input.
[[nodiscard]] Error parse_refusal(std::span<const std::byte> bytes);

/// Client to worker, written to offset 0 of the control area, with RequestKind::attach.
struct Attach {
  std::uint64_t region_base = 0;  ///< The client's region: results and messages are written into it.
  std::uint64_t region_key = 0;
  std::uint64_t region_bytes = 0;
  std::uint64_t messages_offset = 0;  ///< Slot s's message area: messages_offset + s * message_bytes.
  std::uint32_t hot_us = 0;           ///< How long the worker polls after the last call before it sleeps.
  std::uint32_t reserved = 0;
};
static_assert(sizeof(Attach) == 40 && std::is_trivially_copyable_v<Attach>);

/// The worker's input region: [control area][slots][large area].
inline constexpr std::size_t control_bytes = 4096;
inline constexpr std::size_t attach_offset = 0;
inline constexpr std::size_t renew_offset = 64;  ///< A SignedToken, with RequestKind::renew.

/// The layout that a Hello asks for, checked against the region's size.
struct Layout {
  std::uint32_t slots = 0;
  std::size_t slot_bytes = 0;
  std::size_t large_offset = 0;  ///< Where the large area begins.
  std::size_t large_bytes = 0;

  [[nodiscard]] std::size_t slot_offset(std::uint32_t slot) const noexcept {
    return control_bytes + slot * slot_bytes;
  }
};
[[nodiscard]] Result<Layout> layout_of(const Hello& hello, std::size_t region_bytes);

/// Reads a trivially copyable layout from hostile bytes; nothing when they are too few.
template <typename T>
[[nodiscard]] std::optional<T> read_as(std::span<const std::byte> bytes) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  if (bytes.size() < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

template <typename T>
[[nodiscard]] std::span<const std::byte> bytes_of(const T& value) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::as_bytes(std::span(&value, 1));
}

/// Checks magic and version of a Hello; the token is the worker's to check. Hostile input.
[[nodiscard]] Result<Hello> parse_hello(std::span<const std::byte> bytes);
[[nodiscard]] Result<Welcome> parse_welcome(std::span<const std::byte> bytes);

}  // namespace sublet::wire
