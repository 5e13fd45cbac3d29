#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace digits {

inline constexpr std::size_t pixels = 64;
using Image = std::array<std::uint8_t, pixels>;

struct Dataset {
  std::vector<Image> images;
  std::vector<std::uint8_t> labels;  ///< One for each image.
};

/// Reads the gzip CSV at `path`: 64 pixels (0..16) and a label (0..9) a line.
/// Throws std::runtime_error with the line that is wrong.
Dataset load(const std::string& path);

/// What train.py did not train on: every third image.
Dataset held_out(const Dataset& all);

}  // namespace digits
