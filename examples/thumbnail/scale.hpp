#pragma once

#include "examples/thumbnail/jpeg.hpp"

namespace thumbnail {

/// `image` with its longer edge at most edge_max, each pixel the mean of the area it covers. An image
/// that is small enough stays as it is.
Image scale(Image image, std::uint32_t edge_max);

}  // namespace thumbnail
