#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thumbnail {

/// Rows of red, green and blue bytes.
struct Image {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  std::vector<std::uint8_t> rgb;
};

/// Decodes `jpeg`, scaled down as it is decoded by 1, 2, 4 or 8, so that the longer edge stays at least
/// edge_min where the picture has so much. Takes hostile input: throws std::runtime_error for what is no
/// JPEG, is damaged, cut off, of a colour space without a conversion, or larger than its limits.
Image decode(std::span<const std::byte> jpeg, std::uint32_t edge_min);

/// Encodes into `output` and returns the bytes used. Throws std::runtime_error when they do not fit.
std::size_t encode(const Image& image, std::uint32_t quality, std::span<std::byte> output);

}  // namespace thumbnail
