// What a worker counts into the page that it shares with its agent.
#include <signal.h>

#include <algorithm>
#include <array>

#include "tests/catch.hpp"
#include "tests/integration/worker_harness.hpp"
#include "tests/transports.hpp"

using namespace sublet;
using namespace sublet::test;
using wire::ReplyKind;
using wire::RequestKind;

namespace {

constexpr std::uint64_t ns_per_ms = 1'000'000;

std::string number(std::uint32_t value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

std::uint64_t ns_since(TimePoint begin) {
  return static_cast<std::uint64_t>((SteadyClock::now() - begin).count());
}

/// Waits until the worker is inside its call number `call`.
void wait_started(const WorkerHarness::Worker& worker, std::uint64_t call) {
  const TimePoint end = SteadyClock::now() + std::chrono::seconds(20);
  while (WorkerHarness::usage(worker).calls_started < call && SteadyClock::now() < end) {
  }
  REQUIRE(WorkerHarness::usage(worker).calls_started == call);
}

}  // namespace

TEST_CASE("each call counts once, those in flight together and those that fail, and refused ones do not") {
  const std::string transport = GENERATE(from_range(transports()));
  CAPTURE(transport);
  WorkerHarness harness;
  auto worker = harness.start();
  REQUIRE(harness.usage(worker).calls_started == 0);
  const TimePoint begin = SteadyClock::now();
  RawClient client(transport, harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  constexpr std::uint16_t rounds = 20;
  for (std::uint16_t round = 1; round <= rounds; ++round) {
    for (std::uint16_t slot = 0; slot < 16; ++slot)
      REQUIRE(client.send(RequestKind::invoke, slot, round, client.header(echo, slot), "x").ok());
    for (int i = 0; i < 16; ++i) REQUIRE(client.next().has_value());
  }
  REQUIRE(client.send(RequestKind::invoke, 0, rounds + 1, client.header(fail, 0), "").ok());
  REQUIRE(client.next()->kind() == ReplyKind::function_failed);
  REQUIRE(client.send(RequestKind::invoke, 0, rounds + 2, client.header(99, 0), "").ok());
  REQUIRE(client.next()->kind() == ReplyKind::refused);
  REQUIRE(client.send(RequestKind::invoke, 0, rounds + 3, client.header(spin, 0), number(30)).ok());
  REQUIRE(client.next()->kind() == ReplyKind::ok);
  client.close();
  REQUIRE(harness.wait_exit(worker) == 0);
  const std::uint64_t lived = ns_since(begin);
  const local::UsageRecord usage = harness.usage(worker);
  REQUIRE(usage.calls == rounds * 16 + 2);
  REQUIRE(usage.calls_started == usage.calls);
  REQUIRE(usage.execution_ns >= 30 * ns_per_ms);
  REQUIRE(usage.hot_ns > 0);
  REQUIRE(usage.execution_ns + usage.hot_ns <= lived);
}

TEST_CASE("a worker that sleeps is not hot") {
  const std::string transport = GENERATE(from_range(transports()));
  CAPTURE(transport);
  WorkerHarness harness;
  auto worker = harness.start(true);
  RawClient client(transport, harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  REQUIRE(client.send(RequestKind::invoke, 0, 1, client.header(echo, 0), "x").ok());
  REQUIRE(client.next().has_value());
  // Hot for 100 us, then asleep: its own clock is the other side's heartbeats.
  const TimePoint begin = SteadyClock::now();
  while (SteadyClock::now() - begin < std::chrono::milliseconds(1500)) client.service();
  client.close();
  REQUIRE(harness.wait_exit(worker) == 0);
  REQUIRE(harness.usage(worker).hot_ns < 1000 * ns_per_ms);
}

TEST_CASE("a worker that is called seldom stops polling in between, and polls again when calls come close") {
  const std::string transport = GENERATE(from_range(transports()));
  CAPTURE(transport);
  WorkerHarness harness;
  auto worker = harness.start(true);
  RawClient client(transport, harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  std::uint16_t call = 0;
  // How long it polled around one call, `pause` after the last one.
  const auto polled = [&](std::chrono::microseconds pause) {
    const std::uint64_t before = harness.usage(worker).hot_ns;
    const TimePoint begin = SteadyClock::now();
    while (SteadyClock::now() - begin < pause) client.service();
    REQUIRE(client.send(RequestKind::invoke, 0, ++call, client.header(echo, 0), "x").ok());
    REQUIRE(client.next().has_value());
    return harness.usage(worker).hot_ns - before;
  };
  constexpr std::uint64_t hot_ns = 100'000;  // RawClient's.
  constexpr std::chrono::microseconds seldom{2'000};
  for (int round = 0; round < 20; ++round) (void)polled(seldom);
  std::uint64_t least = ~std::uint64_t{0};  // Of some tries: on a busy machine a call itself may take long.
  for (int round = 0; round < 500 && least >= hot_ns / 2; ++round) least = std::min(least, polled(seldom));
  REQUIRE(least < hot_ns / 2);
  std::uint64_t most = 0;  // Of some tries: on a busy machine a quick call may take long.
  for (int attempt = 0; attempt < 50 && most < hot_ns; ++attempt) {
    for (int round = 0; round < 20; ++round) (void)polled(std::chrono::microseconds(0));
    most = std::max(most, polled(seldom));
  }
  REQUIRE(most >= hot_ns);
}

TEST_CASE("a call that is cut off has started and not returned, however the worker ends") {
  const std::string transport = GENERATE(from_range(transports()));
  const std::string end = GENERATE("killed", "crashed", "overrun");
  CAPTURE(transport, end);
  WorkerHarness harness;
  auto worker = harness.start();
  RawClient client(transport, harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  REQUIRE(client.send(RequestKind::invoke, 0, 1, client.header(spin, 0), number(20)).ok());
  REQUIRE(client.next().has_value());
  wire::RequestHeader cut = client.header(end == "crashed" ? crash : spin, 1);
  if (end == "overrun") cut.deadline_us = 30'000;
  REQUIRE(client.send(RequestKind::invoke, 1, 1, cut, number(60'000)).ok());
  REQUIRE(client.send(RequestKind::invoke, 2, 1, client.header(echo, 2), "never").ok());
  wait_started(worker, 2);
  if (end == "killed") REQUIRE(::kill(worker.pid, SIGKILL) == 0);
  REQUIRE(harness.wait_exit(worker).has_value());
  const local::UsageRecord usage = harness.usage(worker);
  REQUIRE(usage.calls == 1);
  REQUIRE(usage.calls_started == 2);
  REQUIRE(usage.execution_ns >= (end == "overrun" ? 50 : 20) * ns_per_ms);
}

TEST_CASE("a call that is cut off counts the time that it has run, once, whoever leaves in its middle") {
  const std::string transport = GENERATE(from_range(transports()));
  const std::string leaves = GENERATE("client", "worker");
  CAPTURE(transport, leaves);
  constexpr std::uint64_t seen_ns = 50 * ns_per_ms;
  WorkerHarness harness;
  auto worker = harness.start();
  const TimePoint begin = SteadyClock::now();
  RawClient client(transport, harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  REQUIRE(client.send(RequestKind::invoke, 0, 1, client.header(spin, 0), number(20)).ok());
  REQUIRE(client.next().has_value());
  REQUIRE(client.send(RequestKind::invoke, 0, 2, client.header(spin, 0), number(60'000)).ok());
  wait_started(worker, 2);
  const TimePoint end = SteadyClock::now() + std::chrono::seconds(20);
  while (harness.usage(worker).execution_ns < seen_ns && SteadyClock::now() < end) client.service();
  REQUIRE(harness.usage(worker).execution_ns >= seen_ns);
  if (leaves == "client") {
    client.close();
  } else {
    REQUIRE(::kill(worker.pid, SIGKILL) == 0);
  }
  REQUIRE(harness.wait_exit(worker).has_value());
  const std::uint64_t lived = ns_since(begin);
  const local::UsageRecord usage = harness.usage(worker);
  REQUIRE(usage.calls == 1);
  REQUIRE(usage.calls_started == 2);
  REQUIRE(usage.execution_ns >= seen_ns);
  REQUIRE(usage.execution_ns + usage.hot_ns <= lived);
}

TEST_CASE("a page is held by its worker until it has gone, and by one process at a time") {
  WorkerHarness harness;
  auto worker = harness.start();
  REQUIRE(local::usage_is_held(worker.usage.get()));
  REQUIRE_FALSE(local::UsagePage::map(FileDescriptor(::dup(worker.usage.get()))).ok());
  REQUIRE(::kill(worker.pid, SIGKILL) == 0);
  REQUIRE(harness.wait_exit(worker).has_value());
  REQUIRE_FALSE(local::usage_is_held(worker.usage.get()));
}
