#pragma once

#include <cstdint>

/// Counts allocator calls. The .cpp stands in for malloc itself, so that what libraries below allocate
/// (libfabric) is counted too. Not for sanitizer builds, which replace malloc themselves.
namespace sublet::test {

/// From now on the calls of this thread count, while counting is on.
void watch_this_thread() noexcept;
void count_allocations(bool on) noexcept;
/// How many were counted since the last time.
[[nodiscard]] std::uint64_t take_allocations() noexcept;

}  // namespace sublet::test
