// A function that checks what it is handed.

#include <sublet/function.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "tests/fuzz/bounds.hpp"

extern "C" SUBLET_EXPORT sublet::fuzz::Bounds sublet_fuzz_bounds;
sublet::fuzz::Bounds sublet_fuzz_bounds;

namespace {

void require_inside(const void* at, std::size_t bytes, const void* area, std::size_t area_bytes) {
  const auto* from = static_cast<const char*>(at);
  const auto* begin = static_cast<const char*>(area);
  if (from < begin || from > begin + area_bytes ||
      bytes > static_cast<std::size_t>(begin + area_bytes - from))
    std::abort();
}

int copy(sublet_call* call) {
  const sublet::fuzz::Bounds& bounds = sublet_fuzz_bounds;
  require_inside(call->input, call->input_bytes, bounds.input, bounds.input_bytes);
  require_inside(call->output, call->output_capacity, bounds.output, bounds.output_bytes);
  call->output_bytes = std::min(call->input_bytes, call->output_capacity);
  std::memcpy(call->output, call->input, call->output_bytes);
  return 0;
}

int fail(sublet_call* call) {
  std::memset(call->message, 'm', call->message_capacity);  // Not terminated: the worker bounds it.
  return 1;
}

int boast(sublet_call* call) {
  call->output_bytes = call->output_capacity + 1;
  return 0;
}

const sublet_entry entries[] = {{"copy", copy}, {"fail", fail}, {"boast", boast}};

}  // namespace

extern "C" SUBLET_EXPORT const sublet_module_v1 sublet_module = {
    SUBLET_FUNCTION_ABI, sizeof(sublet_module_v1), entries, 3, 0, nullptr, nullptr};
