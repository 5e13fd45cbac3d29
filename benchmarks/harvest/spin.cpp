// What `sublet-bench harvest` keeps a worker busy with: works for as many milliseconds as its input says.
#include <sublet/function.hpp>

#include <chrono>
#include <cstdint>

namespace {

std::size_t spin(const sublet::Call& call) {
  const auto input = call.input_as<std::uint32_t>();
  if (input.size() != 1) throw std::invalid_argument("the input is no number of milliseconds");
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(input[0]);
  while (std::chrono::steady_clock::now() < end) {
  }
  return 0;
}

}  // namespace

SUBLET_FUNCTION(spin)
