// The client against a real site: manager, agents and workers as processes of their own.
#include <algorithm>
#include <csignal>
#include <iterator>
#include <optional>
#include <vector>

#include "tests/catch.hpp"
#include "tests/integration/client_probe.hpp"
#include "tests/transports.hpp"

using namespace sublet;
using namespace sublet::test;

TEST_CASE("a call over each transport") {
  const Probe probe;
  const std::string transport = GENERATE(from_range(transports()));
  Lease lease = probe.lease({.workers = 2, .transports = {.require = {transport}}});
  for (const WorkerStatus& worker : lease.workers()) {
    CHECK(worker.transport == transport);
    CHECK(worker.node == "n1");
    CHECK(worker.address != "");
  }
  const Buffer input = buffer_with(lease, "hello");
  Buffer output = lease.allocate(100).value();
  for (int i = 0; i < 100; ++i) {
    const std::size_t size = lease.invoke(input, 5, output).value();
    REQUIRE(text_of(output, size) == "hello");
  }
  CHECK(lease.counters().succeeded == 100);
  CHECK(lease.release().ok());
  CHECK(lease.release().ok());
  CHECK(error_of(lease.invoke(input, 5, output)).code() == Errc::closed);
}

TEST_CASE("many in flight over several workers give each its own result") {
  const Probe probe;
  const std::string transport = GENERATE(from_range(transports()));
  Lease lease = probe.lease(
      {.workers = 3, .transports = {.require = {transport}}, .in_flight = 16, .slot_bytes = 4096});
  constexpr std::size_t lanes = 48;
  constexpr std::size_t rounds = 40;
  // Sizes on both sides of a slot's room, and none at all.
  const auto size_of = [](std::size_t call) { return call * 7919 % 9000; };
  std::vector<Buffer> inputs;
  std::vector<Buffer> outputs;
  std::vector<Future> futures(lanes);
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    inputs.push_back(lease.allocate(9000).value());
    outputs.push_back(lease.allocate(9000).value());
  }
  const auto check = [&](std::size_t call) {
    const std::size_t lane = call % lanes;
    const auto size = futures[lane].wait();
    REQUIRE(size.ok());
    REQUIRE(*size == size_of(call));
    REQUIRE(std::memcmp(outputs[lane].data(), inputs[lane].data(), *size) == 0);
  };
  for (std::size_t call = 0; call < lanes * rounds; ++call) {
    const std::size_t lane = call % lanes;
    if (call >= lanes) check(call - lanes);
    std::memset(inputs[lane].data(), static_cast<int>(call * 31 % 251), size_of(call));
    auto future = lease.submit(inputs[lane], size_of(call), outputs[lane]);
    REQUIRE(future.ok());
    futures[lane] = std::move(*future);
  }
  for (std::size_t call = lanes * (rounds - 1); call < lanes * rounds; ++call) check(call);
  CHECK(lease.counters().succeeded == lanes * rounds);
}

TEST_CASE("an input and an output of several MiB") {
  const Probe probe;
  const std::string transport = GENERATE(from_range(transports()));
  Lease lease = probe.lease({.transports = {.require = {transport}}});
  constexpr std::size_t bytes = std::size_t{12} << 20;
  Buffer input = lease.allocate(bytes).value();
  Buffer output = lease.allocate(bytes).value();
  for (std::size_t i = 0; i < bytes; ++i) input.data()[i] = static_cast<std::byte>(i * 2654435761U >> 24U);
  REQUIRE(lease.invoke(input, bytes, output).value() == bytes);
  CHECK(std::memcmp(input.data(), output.data(), bytes) == 0);
  Buffer huge = lease.allocate(std::size_t{65} << 20).value();
  CHECK(error_of(lease.submit(huge, output)).code() == Errc::too_large);
}

TEST_CASE("results in place, several in flight, of every size") {
  const Probe probe;
  const std::string transport = GENERATE(from_range(transports()));
  Lease lease = probe.lease({.transports = {.require = {transport}}, .in_flight = 4, .slot_bytes = 4096});
  constexpr std::size_t lanes = 4;
  constexpr std::size_t bytes_max = 100'000;
  std::vector<Buffer> inputs;
  std::vector<Buffer> outputs;
  std::vector<std::size_t> sizes(lanes);
  std::vector<Future> futures(lanes);
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    inputs.push_back(lease.allocate(bytes_max).value());
    outputs.push_back(lease.allocate(bytes_max).value());
  }
  for (std::size_t call = 0; call < 200; ++call) {
    const std::size_t lane = call % lanes;
    if (call >= lanes) {
      REQUIRE(futures[lane].wait().value() == sizes[lane]);
      const std::byte* const sent = inputs[lane].data();
      REQUIRE(std::equal(sent, sent + sizes[lane],
                         std::make_reverse_iterator(outputs[lane].data() + sizes[lane])));
    }
    sizes[lane] = call * call * 7919 % bytes_max;
    for (std::size_t i = 0; i < sizes[lane]; ++i)
      inputs[lane].data()[i] = static_cast<std::byte>((i + call) * 2654435761U >> 24U);
    futures[lane] = lease.submit(inputs[lane], sizes[lane], outputs[lane], {.entry = reverse}).value();
  }
  for (Future& future : futures) REQUIRE(future.wait().ok());
}

TEST_CASE("what goes wrong in a function comes back as its status, and the lease goes on") {
  const Probe probe;
  const std::string transport = GENERATE(from_range(transports()));
  Lease lease = probe.lease({.transports = {.require = {transport}}});
  const Buffer input = buffer_with(lease, "hello");
  Buffer output = lease.allocate(64).value();
  Buffer small = lease.allocate(4).value();

  const Error failed = error_of(lease.invoke(input, 5, output, {.entry = fail}));
  CHECK(failed.code() == Errc::function_failed);
  CHECK(failed.detail() == "failed as asked");

  CHECK(error_of(lease.invoke(input, 5, small)).detail() == "no room for the echo");

  CHECK(error_of(lease.invoke(input, 5, output, {.entry = 99})).code() == Errc::invalid_argument);

  const Error crashed = error_of(lease.invoke(input, 5, output, {.entry = crash}));
  CHECK(crashed.code() == Errc::function_failed);
  CHECK(crashed.detail() == "the function crashed with signal 11 (SIGSEGV)");

  CHECK(lease.invoke(input, 5, output).value() == 5);  // By its successor.
  const Buffer long_time = number(lease, 60'000);
  const TimePoint start = SteadyClock::now();
  CHECK(error_of(lease.invoke(long_time, 4, output, {.entry = spin, .deadline = 100ms})).code() ==
        Errc::deadline_exceeded);
  CHECK(SteadyClock::now() - start < 10s);

  Buffer fresh = lease.allocate(64).value();  // The old output is the lost worker's until it is known gone.
  CHECK(lease.invoke(input, 5, fresh).value() == 5);
  CHECK(lease.counters().replaced == 2);
}

TEST_CASE("calls behind a crash run elsewhere") {
  const Probe probe;
  const std::string transport = GENERATE(from_range(transports()));
  Lease lease = probe.lease({.transports = {.require = {transport}}});
  const Buffer input = buffer_with(lease, "hello");
  Buffer broken = lease.allocate(64).value();
  std::vector<Buffer> outputs;
  std::vector<Future> futures;
  Future bad = lease.submit(input, broken, {.entry = crash}).value();
  for (int i = 0; i < 8; ++i) {
    outputs.push_back(lease.allocate(64).value());
    futures.push_back(lease.submit(input, outputs.back()).value());
  }
  CHECK(error_of(bad.wait()).code() == Errc::function_failed);
  for (Future& future : futures) CHECK(future.wait().value() == 5);
  const LeaseCounters counters = lease.counters();
  CHECK(counters.submitted == 9);
  CHECK(counters.succeeded == 8);
  CHECK(counters.failed == 1);
}

TEST_CASE("a cancelled call that has not begun is not begun") {
  const Probe probe;
  Lease lease = probe.lease();
  const Buffer time = number(lease, 200);
  Buffer first_output = lease.allocate(64).value();
  Buffer second_output = lease.allocate(64).value();
  Future first = lease.submit(time, first_output, {.entry = spin}).value();
  Future second = lease.submit(time, second_output, {.entry = spin}).value();
  second.cancel();
  CHECK(error_of(second.wait()).code() == Errc::cancelled);
  CHECK(first.wait().ok());
}

TEST_CASE("futures and buffers may outlive their lease") {
  const Probe probe;
  std::optional<Lease> lease = probe.lease();
  const Buffer time = number(*lease, 2000);
  Buffer output = lease->allocate(64).value();
  Future future = lease->submit(time, output, {.entry = spin}).value();
  Lease moved = std::move(*lease);
  lease.reset();
  CHECK_FALSE(future.ready());
  { const Lease ends = std::move(moved); }
  CHECK(future.ready());
  CHECK(error_of(future.wait()).code() == Errc::closed);
  CHECK(error_of(future.wait()).code() == Errc::closed);
  CHECK(time.data()[1] == std::byte{2000 >> 8});
}

TEST_CASE("leases that cannot be had say why") {
  const Probe probe(2);
  Site site = probe.site();
  const auto code = [&](LeaseOptions options) {
    if (options.function.empty()) options.function = "probe@1";
    options.wait = 200ms;
    const auto lease = site.lease(options);
    REQUIRE_FALSE(lease.ok());
    CHECK(lease.error().message().size() > 20);
    return lease.error().code();
  };
  CHECK(code({.function = "nothing@1"}) == Errc::not_found);
  CHECK(code({.workers = 3}) == Errc::no_capacity);
  CHECK(code({.transports = {.require = {"pigeon"}}}) == Errc::unavailable);
  CHECK(code({.transports = {.require = {"pigeon", "tcp"}, .forbid = {"tcp"}}}) == Errc::invalid_argument);
  CHECK(code({.in_flight = 3}) == Errc::invalid_argument);
  CHECK(code({.in_flight = 4096, .slot_bytes = std::size_t{1} << 26}) == Errc::too_large);
  CHECK(error_of(Site::connect("http://127.0.0.1:1")).code() == Errc::unavailable);
  CHECK(error_of(Site::connect("nonsense")).code() == Errc::invalid_argument);
  CHECK(error_of(site.deploy("probe", "1", SiteFixture::program("sublet"))).code() == Errc::already_exists);
}

TEST_CASE("the user's signal handlers stay the user's") {
  const Probe probe;
  std::vector<void (*)(int)> before;
  const auto handlers = [] {
    std::vector<void (*)(int)> all;
    for (int number = 1; number < 32; ++number) {
      struct sigaction action {};
      ::sigaction(number, nullptr, &action);
      all.push_back(action.sa_handler);
    }
    return all;
  };
  before = handlers();
  Lease lease = probe.lease({.transports = {.require = {"tcp"}}});
  const Buffer input = buffer_with(lease, "x");
  Buffer output = lease.allocate(64).value();
  CHECK(lease.invoke(input, 1, output).ok());
  CHECK(handlers() == before);
}
