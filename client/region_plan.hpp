#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/limits.hpp"
#include "runtime/wire/handshake.hpp"
#include "runtime/wire/request.hpp"

namespace sublet::client {

/// How a lease lays out its region, which its workers write into: for each worker a control area (what
/// attach and renew send), the headers and the message areas of its slots; then the user's buffers.
struct RegionPlan {
  std::uint32_t links = 0;
  std::uint32_t slots = 0;  ///< Of each link.

  static constexpr std::size_t control_bytes = 128;
  static constexpr std::size_t attach_offset = 0;
  static constexpr std::size_t renew_offset = 64;
  static constexpr std::size_t header_stride = 64;
  static constexpr std::size_t page_bytes = 4096;
  static_assert(sizeof(wire::Attach) <= renew_offset &&
                renew_offset + sizeof(wire::SignedToken) <= control_bytes);
  static_assert(sizeof(wire::RequestHeader) <= header_stride);

  [[nodiscard]] std::size_t control_offset(std::uint32_t link) const noexcept { return link * control_bytes; }
  [[nodiscard]] std::size_t headers_offset(std::uint32_t link) const noexcept {
    return links * control_bytes + std::size_t{link} * slots * header_stride;
  }
  [[nodiscard]] std::size_t messages_offset(std::uint32_t link) const noexcept {
    return headers_offset(links) + std::size_t{link} * slots * limits::message_bytes;
  }
  [[nodiscard]] std::size_t arena_offset() const noexcept {
    return (messages_offset(links) + page_bytes - 1) / page_bytes * page_bytes;
  }
};

}  // namespace sublet::client
