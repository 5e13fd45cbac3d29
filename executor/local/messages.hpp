#pragma once

#include <algorithm>
#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

#include "runtime/base/digest.hpp"
#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/result.hpp"
#include "runtime/wire/handshake.hpp"

/// What agent, template and workers of one node say over sequenced-packet sockets, and what a batch system's
/// hooks order: one struct a packet, its first member the kind. The agent checks what workers say: they run
/// tenants' code.
namespace sublet::local {

enum class Kind : std::uint32_t {
  fork = 1,  ///< Agent to template, with the worker's socket and its usage page.
  forked,    ///< Template to agent: the worker's process id.
  ready,     ///< Worker to agent: listens; publish it.
  attach,    ///< Worker to agent: a client presented this token.
  attached,  ///< Agent to worker: what the lease gets, or why not.
  serving,   ///< Worker to agent: the client is connected.
  end,       ///< Agent to worker: stop admitting, finish, leave.
  ended,     ///< Worker to agent: about to exit, and why.
  lend,      ///< Hook to agent: lend this and no more.
  lent,      ///< Agent to hook: so it is, or why not.
  ask_lent,  ///< To the agent: what is lent?
};

inline constexpr std::size_t address_bytes = 108;  ///< sockaddr_un's room for a path.
inline constexpr std::size_t transport_bytes = 20;
inline constexpr std::size_t transports_max = 4;  ///< Of one worker.
inline constexpr std::size_t path_bytes = 512;
inline constexpr std::size_t text_bytes = 256;

enum class EndReason : std::uint32_t {
  released = 1,
  expired,
  revoked,
  drained,
  client_lost,
  overrun,
  load_failed
};
[[nodiscard]] constexpr std::string_view name(EndReason reason) noexcept {
  switch (reason) {
    case EndReason::released:
      return "released";
    case EndReason::expired:
      return "expired";
    case EndReason::revoked:
      return "revoked";
    case EndReason::drained:
      return "drained";
    case EndReason::client_lost:
      return "client_lost";
    case EndReason::overrun:
      return "overrun";
    case EndReason::load_failed:
      return "load_failed";
  }
  return "crashed";
}

/// A transport and where a worker listens on it; no name: none.
struct Endpoint {
  std::array<char, transport_bytes> transport{};
  std::array<char, address_bytes> address{};
};
using Endpoints = std::array<Endpoint, transports_max>;

struct Fork {
  Kind kind = Kind::fork;
  std::uint32_t worker = 0;
  std::uint64_t region_bytes = 0;
  SecretKey key{};             ///< The worker's own.
  Endpoints listen;            ///< As Transport::listen() takes the addresses.
  std::uint32_t function = 0;  ///< To load before it is ready; 0: none.
  std::array<char, path_bytes> function_path{};
};

struct Forked {
  Kind kind = Kind::forked;
  std::uint32_t worker = 0;
  std::int32_t pid = 0;  ///< -1: fork failed.
};

struct Ready {
  Kind kind = Kind::ready;
  Endpoints endpoints;  ///< On which it listens: some of those that it was to listen on.
};

struct Attach {
  Kind kind = Kind::attach;
  std::uint32_t reserved = 0;
  wire::Token token;
};

struct Attached {
  Kind kind = Kind::attached;
  std::uint16_t refused = 0;  ///< Errc; 0: granted.
  std::uint16_t reserved = 0;
  std::int64_t lease_end_ns = 0;  ///< By CLOCK_MONOTONIC, which both read.
  std::array<char, text_bytes> text{};
  std::array<char, path_bytes> function_path{};
};

struct Serving {
  Kind kind = Kind::serving;
  std::array<char, transport_bytes> transport{};  ///< By which the client came.
};

struct End {
  Kind kind = Kind::end;
  EndReason reason = EndReason::drained;
};

struct Ended {
  Kind kind = Kind::ended;
  EndReason reason = EndReason::released;
  std::array<char, text_bytes> text{};
};

inline constexpr std::size_t cores_max = 4096;  ///< Of one node.
using CoreSet = std::bitset<cores_max>;         ///< By their place among the cores of the agent.
static_assert(std::is_trivially_copyable_v<CoreSet>);

struct Lend {
  Kind kind = Kind::lend;
  std::uint32_t reserved = 0;
  std::uint64_t memory_bytes = 0;
  CoreSet cores;
};

/// After Lend once nothing beyond it is in use; after AskLent at once.
struct Lent {
  Kind kind = Kind::lent;
  std::uint16_t refused = 0;  ///< Errc; 0: carried out.
  std::uint16_t reserved = 0;
  std::uint64_t memory_bytes = 0;
  CoreSet cores;  ///< What is lent.
  CoreSet held;   ///< What leases hold.
  std::array<char, text_bytes> text{};
};

struct AskLent {
  Kind kind = Kind::ask_lent;
};

/// Cuts text to its room; always terminated.
template <std::size_t size>
void put(std::array<char, size>& room, std::string_view text) noexcept {
  const std::size_t length = std::min(text.size(), size - 1);
  std::copy_n(text.data(), length, room.data());
  room[length] = '\0';
}
template <std::size_t size>
[[nodiscard]] std::string_view get(const std::array<char, size>& room) noexcept {
  return {room.data(), ::strnlen(room.data(), size)};
}

/// Into the first free place; false when there is none.
[[nodiscard]] inline bool add(Endpoints& endpoints, std::string_view transport,
                              std::string_view address) noexcept {
  for (Endpoint& endpoint : endpoints) {
    if (!get(endpoint.transport).empty()) continue;
    put(endpoint.transport, transport);
    put(endpoint.address, address);
    return true;
  }
  return false;
}

inline constexpr std::size_t attached_max = 2;  ///< Descriptors with one packet.

/// One received packet, and the descriptors that came with it, if any.
struct Packet {
  std::array<std::byte, 2048> bytes{};
  std::size_t size = 0;
  std::array<FileDescriptor, attached_max> attached;

  [[nodiscard]] Kind kind() const noexcept {
    Kind kind{};
    if (size >= sizeof(kind)) std::memcpy(&kind, bytes.data(), sizeof(kind));
    return kind;
  }
  template <typename T>
  [[nodiscard]] std::optional<T> as() const noexcept {
    static_assert(sizeof(T) <= sizeof(bytes));
    if (kind() != T{}.kind || size != sizeof(T)) return std::nullopt;
    return wire::read_as<T>(std::span(bytes).first(size));
  }
};

/// Never blocks. unavailable when the other side's buffer is full, closed when it has gone. The descriptors,
/// at most attached_max, stay the caller's.
[[nodiscard]] Status send_packet(int socket, std::span<const std::byte> bytes,
                                 std::span<const int> attached = {}) noexcept;
template <typename T>
[[nodiscard]] Status send(int socket, const T& message, std::span<const int> attached = {}) noexcept {
  return send_packet(socket, wire::bytes_of(message), attached);
}
/// Never blocks. unavailable when nothing is there, closed at the end.
[[nodiscard]] Result<Packet> receive(int socket);

struct SocketPair {
  FileDescriptor first;
  FileDescriptor second;
};
/// Non-blocking, close-on-exec.
[[nodiscard]] Result<SocketPair> make_socket_pair();

}  // namespace sublet::local
