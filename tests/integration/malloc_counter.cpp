#include "tests/integration/malloc_counter.hpp"

#include <atomic>
#include <cstddef>
#include <utility>

namespace {

thread_local bool watched = false;
std::atomic<bool> counting{false};
std::atomic<std::uint64_t> allocations{0};

void count() noexcept {
  if (watched && counting.load(std::memory_order_relaxed))
    allocations.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

namespace sublet::test {
void watch_this_thread() noexcept {
  watched = true;
}
void count_allocations(bool on) noexcept {
  counting.store(on);
}
std::uint64_t take_allocations() noexcept {
  return allocations.exchange(0);
}
}  // namespace sublet::test

extern "C" {
void* __libc_malloc(std::size_t bytes);
void* __libc_calloc(std::size_t count, std::size_t bytes);
void* __libc_realloc(void* old, std::size_t bytes);
void* malloc(std::size_t bytes) {
  count();
  return __libc_malloc(bytes);
}
void* calloc(std::size_t items, std::size_t bytes) {
  count();
  return __libc_calloc(items, bytes);
}
void* realloc(void* old, std::size_t bytes) {
  count();
  return __libc_realloc(old, bytes);
}
}
