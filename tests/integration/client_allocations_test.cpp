// The client's way of a call allocates nothing: every allocator call of the user's thread is counted
// while calls go out and come back. The counters stand in for malloc itself, so that what a transport's
// library allocates would be counted too.
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "sdk/cpp/sublet/client.hpp"
#include "tests/catch.hpp"
#include "tests/integration/site_fixture.hpp"

namespace {
thread_local bool counting = false;
thread_local std::uint64_t allocations = 0;
void count() noexcept {
  if (counting) ++allocations;
}
}  // namespace

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

using namespace sublet;
using namespace std::chrono_literals;

TEST_CASE("ten thousand warm calls allocate nothing at the client") {
  test::SiteFixture site;
  site.start_agent("n1", 2);
  Site connected = Site::connect(site.url()).value();
  connected.deploy("probe", "1", test::SiteFixture::probe_function()).value();
  const std::string transport = GENERATE("shm", "tcp");
  Lease lease =
      connected.lease({.function = "probe@1", .workers = 2, .wait = 20s, .transports = {transport}}).value();
  Buffer input = lease.allocate(200'000).value();
  std::vector<Buffer> outputs;
  for (int i = 0; i < 16; ++i) outputs.push_back(lease.allocate(200'000).value());
  std::vector<Future> futures(outputs.size());

  const auto calls = [&](int many) {
    std::uint64_t failed = 0;
    for (int call = 0; call < many; ++call) {
      const std::size_t lane = static_cast<std::size_t>(call) % outputs.size();
      if (call >= static_cast<int>(outputs.size()) && !futures[lane].wait().ok()) ++failed;
      // Now and then one that goes through the large area.
      auto future = lease.submit(input, call % 100 == 0 ? 200'000 : 64, outputs[lane]);
      if (future.ok()) futures[lane] = std::move(*future);
      if (call % 7 == 0) lease.poll();
    }
    for (Future& future : futures) {
      if (!future.wait().ok()) ++failed;
    }
    return failed;
  };
  REQUIRE(calls(1000) == 0);
  allocations = 0;
  counting = true;
  const std::uint64_t failed = calls(10'000);
  counting = false;
  CHECK(failed == 0);
  CHECK(allocations == 0);
  // The counter counts.
  counting = true;
  void* volatile probe = std::malloc(16);
  counting = false;
  std::free(probe);
  CHECK(allocations == 1);
}
