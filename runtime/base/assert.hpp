#pragma once

namespace sublet {
/// Prints the broken invariant to stderr and aborts. For our own invariants only, on in release:
/// what a peer, a device, a file or a user can cause is an error value.
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line) noexcept;
}  // namespace sublet

#define SUBLET_ASSERT(expression)                       \
  (static_cast<bool>(expression) ? static_cast<void>(0) \
                                 : ::sublet::assertion_failed(#expression, __FILE__, __LINE__))
