#pragma once

#include <cstdint>

namespace thumbnail {

/// What precedes the JPEG in a call's input; little-endian.
struct Request {
  std::uint32_t edge_max = 160;  ///< Pixels of the result's longer edge; 1 to edge_limit.
  std::uint32_t quality = 85;    ///< Of the result's JPEG; 1 to 100.
};
static_assert(sizeof(Request) == 8);

inline constexpr std::uint32_t edge_limit = 2048;

}  // namespace thumbnail
