// The function that the benchmarks call: its output is its input.
#include <sublet/function.hpp>

#include <algorithm>

namespace {

std::size_t echo(std::span<const std::byte> input, std::span<std::byte> output) {
  if (output.size() < input.size()) throw std::length_error("the output is smaller than the input");
  std::copy(input.begin(), input.end(), output.begin());
  return input.size();
}

}  // namespace

SUBLET_FUNCTION(echo)
