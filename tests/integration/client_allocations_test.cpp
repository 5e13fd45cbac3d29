// The client's way of a call allocates nothing: every allocator call of the user's thread is counted
// while calls go out and come back.
#include <cstring>
#include <string>
#include <vector>

#include "sdk/cpp/sublet/client.hpp"
#include "tests/catch.hpp"
#include "tests/integration/malloc_counter.hpp"
#include "tests/integration/site_fixture.hpp"

using namespace sublet;
using namespace std::chrono_literals;

TEST_CASE("ten thousand warm calls allocate nothing at the client") {
  test::SiteFixture site;
  site.start_agent("n1", 2);
  Site connected = Site::connect(site.url()).value();
  connected.deploy("probe", "1", test::SiteFixture::probe_function()).value();
  const std::string transport = GENERATE("shm", "tcp");
  Lease lease =
      connected
          .lease({.function = "probe@1", .workers = 2, .wait = 20s, .transports = {.require = {transport}}})
          .value();
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
  test::watch_this_thread();
  test::count_allocations(true);
  const std::uint64_t failed = calls(10'000);
  test::count_allocations(false);
  CHECK(failed == 0);
  CHECK(test::take_allocations() == 0);
}
