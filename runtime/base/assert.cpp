#include "runtime/base/assert.hpp"

#include <cstdio>
#include <cstdlib>

namespace sublet {
void assertion_failed(const char* expression, const char* file, int line) noexcept {
  std::fprintf(stderr, "sublet: broken invariant at %s:%d: %s; please report this\n", file, line, expression);
  std::abort();
}
}  // namespace sublet
