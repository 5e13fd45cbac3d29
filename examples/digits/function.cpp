// Classifies hand-written digits: images of 8x8 pixels (0..16, one byte each) in, one byte a label out.
#include <sublet/function.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace {

constexpr std::size_t pixels = 64;
constexpr std::size_t hidden = 64;
constexpr std::size_t digits = 10;
constexpr float pixel_max = 16.0F;

constexpr std::array<float, pixels* hidden + hidden + hidden* digits + digits> trained = {
#include "weights.inc"
};

/// Made once for each worker: the weights, laid out for the order in which they are used.
class Classifier {
 public:
  Classifier() {
    auto from = trained.begin();
    const auto take = [&from](std::span<float> to) {
      std::copy_n(from, to.size(), to.begin());
      from += static_cast<std::ptrdiff_t>(to.size());
    };
    for (auto& row : first_) take(row);
    take(first_bias_);
    for (auto& row : second_) take(row);
    take(second_bias_);
    for (auto& row : first_) {
      for (float& weight : row) weight /= pixel_max;
    }
  }

  std::size_t operator()(const sublet::Call& call) const {
    const auto images = call.input_as<std::array<std::uint8_t, pixels>>();
    const auto labels = call.output_as<std::uint8_t>();
    if (labels.size() < images.size()) throw std::length_error("the output holds one byte for each image");
    std::transform(images.begin(), images.end(), labels.begin(),
                   [this](const auto& image) { return classify(image); });
    return images.size();
  }

 private:
  std::uint8_t classify(const std::array<std::uint8_t, pixels>& image) const {
    std::array<float, hidden> activation = first_bias_;
    for (std::size_t i = 0; i < pixels; ++i) {
      const float pixel = image[i];
      for (std::size_t j = 0; j < hidden; ++j) activation[j] += pixel * first_[i][j];
    }
    std::array<float, digits> score = second_bias_;
    for (std::size_t j = 0; j < hidden; ++j) {
      const float active = std::max(activation[j], 0.0F);
      for (std::size_t k = 0; k < digits; ++k) score[k] += active * second_[j][k];
    }
    return static_cast<std::uint8_t>(std::max_element(score.begin(), score.end()) - score.begin());
  }

  std::array<std::array<float, hidden>, pixels> first_{};
  std::array<float, hidden> first_bias_{};
  std::array<std::array<float, digits>, hidden> second_{};
  std::array<float, digits> second_bias_{};
};

}  // namespace

SUBLET_STATEFUL_FUNCTION(Classifier)
