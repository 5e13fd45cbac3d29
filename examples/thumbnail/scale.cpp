#include "examples/thumbnail/scale.hpp"

#include <algorithm>
#include <cmath>

namespace thumbnail {
namespace {

/// One source pixel's part of a target pixel.
struct Share {
  std::uint32_t source = 0;
  float weight = 0;
};

/// For each of `to` target pixels the source pixels below it, by how much of each it covers.
std::vector<std::vector<Share>> shares(std::uint32_t from, std::uint32_t to) {
  const double step = static_cast<double>(from) / to;
  std::vector<std::vector<Share>> all(to);
  for (std::uint32_t target = 0; target < to; ++target) {
    const double begin = target * step;
    const double end = std::min(begin + step, static_cast<double>(from));
    for (auto source = static_cast<std::uint32_t>(begin); source < from && source < end; ++source) {
      const double covered = std::min(end, source + 1.0) - std::max(begin, static_cast<double>(source));
      all[target].push_back({source, static_cast<float>(covered / (end - begin))});
    }
  }
  return all;
}

void scale_row(const std::uint8_t* row, const std::vector<std::vector<Share>>& columns,
               std::vector<float>& out) {
  for (std::size_t x = 0; x < columns.size(); ++x) {
    for (std::size_t channel = 0; channel < 3; ++channel) {
      float sum = 0;
      for (const Share& share : columns[x])
        sum += share.weight * static_cast<float>(row[std::size_t{share.source} * 3 + channel]);
      out[x * 3 + channel] = sum;
    }
  }
}

}  // namespace

Image scale(Image image, std::uint32_t edge_max) {
  const std::uint32_t edge = std::max(image.width, image.height);
  if (edge <= edge_max) return image;
  const auto shrink = [&](std::uint32_t length) {
    return std::max(1U, static_cast<std::uint32_t>(std::lround(double{1} * length * edge_max / edge)));
  };
  Image small{shrink(image.width), shrink(image.height), {}};
  const auto columns = shares(image.width, small.width);
  const auto rows = shares(image.height, small.height);
  const std::size_t row_values = std::size_t{small.width} * 3;
  small.rgb.resize(row_values * small.height);

  std::vector<float> narrow(row_values);
  std::vector<float> sum(row_values);
  for (std::size_t y = 0; y < rows.size(); ++y) {
    std::fill(sum.begin(), sum.end(), 0.0F);
    for (const Share& share : rows[y]) {
      scale_row(image.rgb.data() + std::size_t{share.source} * image.width * 3, columns, narrow);
      for (std::size_t i = 0; i < row_values; ++i) sum[i] += share.weight * narrow[i];
    }
    for (std::size_t i = 0; i < row_values; ++i)
      small.rgb[y * row_values + i] = static_cast<std::uint8_t>(std::clamp(sum[i] + 0.5F, 0.0F, 255.0F));
  }
  return small;
}

}  // namespace thumbnail
