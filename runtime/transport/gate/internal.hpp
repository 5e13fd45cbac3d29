#pragma once

#include <chrono>
#include <cstdint>

/// Shared by the gate's own source files.
namespace sublet::transport::gate {

// What the epoll set says besides the numbers of links.
inline constexpr std::uint64_t listener_event = 0;
inline constexpr std::uint64_t mailbox_event = 1;
inline constexpr std::uint64_t waited_event = 2;
inline constexpr std::uint64_t first_link = 8;

inline constexpr std::chrono::milliseconds lingering_step{1};

/// The other end of a unix socket runs as our user or as root.
[[nodiscard]] bool same_user(int socket) noexcept;

}  // namespace sublet::transport::gate
