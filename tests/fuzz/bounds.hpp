#pragma once

#include <cstddef>

namespace sublet::fuzz {

/// The memory that a function may be handed: its lease's and no other.
struct Bounds {
  const void* input = nullptr;
  std::size_t input_bytes = 0;
  const void* output = nullptr;
  std::size_t output_bytes = 0;
};

}  // namespace sublet::fuzz
