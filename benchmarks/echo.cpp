// The function that the benchmarks call: its output is its input, in place.
#include <sublet/function.hpp>

namespace {

std::size_t echo(const sublet::Call& call) {
  const std::size_t bytes = call.input().size();
  if (call.in_place().size() < bytes) throw std::length_error("the output is smaller than the input");
  return bytes;
}

}  // namespace

SUBLET_FUNCTION(echo)
