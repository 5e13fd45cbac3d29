#include "client/invocations.hpp"

#include <csignal>

#include "tests/catch.hpp"
#include "tests/unit/client/fake_worker.hpp"

using namespace sublet;
using namespace sublet::client;
using namespace sublet::client::test;
using namespace std::chrono_literals;

namespace {
int code(Errc error) {
  return static_cast<int>(error);
}
void fill(std::span<std::byte> bytes, int value) {
  std::fill(bytes.begin(), bytes.end(), static_cast<std::byte>(value));
}
}  // namespace

TEST_CASE("a call is written once with its header and then without it") {
  FakeLease lease(1);
  auto input = lease.allocate(100);
  auto output = lease.allocate(100);
  fill(input.bytes, 7);
  for (int round = 0; round < 3; ++round) {
    const CallHandle call = lease.submit(input, output).value();
    FakeWorker& worker = *lease.workers[0];
    REQUIRE(worker.calls.size() == 1);
    CHECK(worker.calls[0].kind == (round == 0 ? wire::RequestKind::invoke : wire::RequestKind::invoke_again));
    CHECK(worker.calls[0].generation == round + 1);
    CHECK(worker.calls[0].input == std::vector<std::byte>(100, std::byte{7}));
    CHECK(worker.calls[0].header.output_offset == output.offset);
    CHECK(lease.status(call) == FakeLease::pending);
    lease.echo(worker);
    lease.progress();
    CHECK(lease.calls.find(call)->output_bytes == 100);
    CHECK(lease.take(call) == FakeLease::success);
    CHECK(output.bytes[99] == std::byte{7});
  }
  CHECK(lease.calls.counters().submitted == 3);
  CHECK(lease.calls.counters().succeeded == 3);
}

TEST_CASE("another header is sent whole") {
  FakeLease lease(1);
  auto input = lease.allocate(10);
  auto output = lease.allocate(10);
  auto other = lease.allocate(20);
  FakeWorker& worker = *lease.workers[0];
  for (const auto* target : {&output, &other, &other}) {
    const CallHandle call = lease.submit(input, *target).value();
    const bool again = target == &other && worker.headers.at(0).output_offset == other.offset &&
                       worker.calls[0].kind == wire::RequestKind::invoke_again;
    CHECK((worker.calls[0].kind == wire::RequestKind::invoke || again));
    CHECK(worker.calls[0].header.output_offset == target->offset);
    CHECK(worker.calls[0].header.output_capacity == target->bytes.size());
    lease.echo(worker);
    lease.progress();
    CHECK(lease.take(call) == FakeLease::success);
  }
}

TEST_CASE("an input larger than a slot goes through the large area, in pieces of the transport's maximum") {
  FakeLease lease(1);
  auto large = lease.allocate(3000);
  for (std::size_t i = 0; i < large.bytes.size(); ++i) large.bytes[i] = static_cast<std::byte>(i);
  auto small = lease.allocate(10);
  auto out1 = lease.allocate(3000);
  auto out2 = lease.allocate(3000);
  FakeWorker& worker = *lease.workers[0];
  const CallHandle first = lease.submit(large, out1).value();
  CHECK(worker.calls[0].input == std::vector<std::byte>(large.bytes.begin(), large.bytes.end()));
  // 4096 bytes of large area: no second one until the first has been answered, but small ones go.
  CHECK(lease.submit(large, out2).error().code() == Errc::queue_full);
  const CallHandle little = lease.submit(small, out2).value();
  lease.echo(worker);
  lease.echo(worker);
  lease.progress();
  CHECK(lease.take(first) == FakeLease::success);
  CHECK(lease.take(little) == FakeLease::success);
  const CallHandle second = lease.submit(large, out2).value();
  lease.echo(worker);
  lease.progress();
  CHECK(lease.take(second) == FakeLease::success);
  CHECK(out2.bytes[2999] == large.bytes[2999]);

  auto huge = lease.allocate(5000);
  CHECK(lease.submit(huge, out1).error().code() == Errc::too_large);
}

TEST_CASE("the worker with the fewest in flight is taken, and all full is queue_full") {
  FakeLease lease(2, 4);
  auto input = lease.allocate(8);
  std::vector<FakeLease::Piece> outputs;
  std::vector<CallHandle> handles;
  for (int i = 0; i < 9; ++i) outputs.push_back(lease.allocate(8));
  for (std::size_t i = 0; i < 8; ++i) {
    handles.push_back(lease.submit(input, outputs[i]).value());
    CHECK(lease.workers[i % 2]->calls.size() == i / 2 + 1);
  }
  CHECK(lease.submit(input, outputs[8]).error().code() == Errc::queue_full);
  lease.echo(*lease.workers[1]);
  lease.progress();
  // The table is bounded too: a result must be taken first.
  CHECK(lease.submit(input, outputs[8]).error().code() == Errc::queue_full);
  CHECK(lease.take(handles[1]) == FakeLease::success);
  CHECK(lease.submit(input, outputs[8]).ok());
  CHECK(lease.workers[1]->calls.size() == 4);
}

TEST_CASE("an output in flight, or one that is being read, is busy") {
  FakeLease lease(1);
  auto a = lease.allocate(8);
  auto b = lease.allocate(8);
  auto c = lease.allocate(8);
  CHECK(lease.submit(a, a).error().code() == Errc::invalid_argument);
  const CallHandle call = lease.submit(a, b).value();
  CHECK(lease.submit(a, b).error().code() == Errc::busy);
  CHECK(lease.submit(c, a).error().code() == Errc::busy);
  CHECK(lease.submit(b, c).error().code() == Errc::busy);
  CHECK(lease.submit(a, c).ok());
  lease.echo(*lease.workers[0]);
  lease.progress();
  CHECK(lease.submit(c, b).error().code() == Errc::busy);  // c is still an output.
  CHECK(lease.take(call) == FakeLease::success);
  CHECK(lease.submit(a, b).ok());
}

TEST_CASE("an overdue call ends, its slot and buffers stay reserved until the late reply") {
  FakeLease lease(1, 1);
  auto input = lease.allocate(8);
  auto output = lease.allocate(8);
  auto other = lease.allocate(8);
  const CallHandle call = lease.submit(input, output, 1ms).value();
  lease.now += 2ms;
  lease.progress();
  CHECK(lease.take(call) == code(Errc::deadline_exceeded));
  CHECK(lease.submit(input, output).error().code() == Errc::busy);
  CHECK(lease.submit(input, other).error().code() == Errc::queue_full);
  const std::size_t live = lease.calls.blocks().live();
  lease.calls.blocks().drop(output.block);
  CHECK(lease.calls.blocks().live() == live);
  lease.echo(*lease.workers[0]);
  lease.progress();
  CHECK(lease.calls.blocks().live() == live - 1);
  CHECK(lease.submit(input, other).ok());
  CHECK(lease.calls.counters().failed == 1);
}

TEST_CASE("duplicate and stale replies change nothing, impossible ones close the link") {
  FakeLease lease(1);
  auto input = lease.allocate(8);
  auto output = lease.allocate(8);
  FakeWorker& worker = *lease.workers[0];
  const CallHandle call = lease.submit(input, output).value();
  worker.reply(wire::ReplyKind::ok, worker.calls[0].slot, 9, 8);
  worker.reply(wire::ReplyKind::ok, 3, 0, 8);
  lease.progress();
  CHECK(lease.status(call) == FakeLease::pending);

  SECTION("a duplicate") {
    worker.reply(wire::ReplyKind::ok, worker.calls[0].slot, 1, 8);
    worker.reply(wire::ReplyKind::ok, worker.calls[0].slot, 1, 8);
    lease.progress();
    CHECK(lease.take(call) == FakeLease::success);
    CHECK(lease.calls.counters().succeeded == 1);
    CHECK_FALSE(lease.calls.has_lost());
  }
  SECTION("longer than the output") {
    worker.reply(wire::ReplyKind::ok, worker.calls[0].slot, 1, 9);
    lease.progress();
    CHECK(lease.take(call) == code(Errc::worker_lost));
    CHECK(worker.closed_by_client);
    CHECK(lease.calls.take_lost().at(0).error == Errc::protocol_error);
  }
  SECTION("a message longer than its area") {
    worker.reply(wire::ReplyKind::function_failed, worker.calls[0].slot, 1, 257);
    lease.progress();
    CHECK(lease.take(call) == code(Errc::worker_lost));
  }
  SECTION("a slot that does not exist") {
    worker.reply(wire::ReplyKind::ok, 4, 1, 8);
    lease.progress();
    CHECK(lease.take(call) == code(Errc::worker_lost));
  }
  SECTION("a kind that does not exist") {
    worker.reply(static_cast<wire::ReplyKind>(9), 0, 1, 8);
    lease.progress();
    CHECK(lease.take(call) == code(Errc::worker_lost));
  }
}

TEST_CASE("the region's headers are not believed: a worker may write them") {
  FakeLease lease(1);
  auto input = lease.allocate(8);
  auto output = lease.allocate(8);
  FakeWorker& worker = *lease.workers[0];
  const CallHandle call = lease.submit(input, output).value();
  std::fill_n(lease.region.begin() + static_cast<std::ptrdiff_t>(lease.plan.headers_offset(0)), 256,
              std::byte{0xFF});
  worker.reply(wire::ReplyKind::ok, worker.calls[0].slot, 1, 1000);
  lease.progress();
  CHECK(lease.take(call) == code(Errc::worker_lost));
}

TEST_CASE("each reply gives its status, with the message") {
  FakeLease lease(1);
  auto input = lease.allocate(8);
  auto output = lease.allocate(8);
  FakeWorker& worker = *lease.workers[0];
  const auto [kind, expected] =
      GENERATE(table<wire::ReplyKind, Errc>({{wire::ReplyKind::function_failed, Errc::function_failed},
                                             {wire::ReplyKind::deadline_exceeded, Errc::deadline_exceeded},
                                             {wire::ReplyKind::cancelled, Errc::cancelled},
                                             {wire::ReplyKind::refused, Errc::invalid_argument}}));
  const CallHandle call = lease.submit(input, output).value();
  lease.answer(worker, kind, "too blue");
  lease.progress();
  const Call& record = *lease.calls.find(call);
  if (expected == Errc::function_failed || expected == Errc::invalid_argument) {
    CHECK(std::string_view(record.message.data(), record.message_bytes) == "too blue");
  }
  CHECK(lease.take(call) == code(expected));
}

TEST_CASE("a call that was not started runs again elsewhere") {
  FakeLease lease(2);
  auto input = lease.allocate(8);
  auto output = lease.allocate(8);
  const CallHandle call = lease.submit(input, output).value();
  lease.answer(*lease.workers[0], wire::ReplyKind::not_started);
  lease.progress();
  CHECK(lease.status(call) == FakeLease::pending);
  REQUIRE(lease.workers[1]->calls.size() == 1);
  lease.echo(*lease.workers[1]);
  lease.progress();
  CHECK(lease.take(call) == FakeLease::success);
  CHECK(lease.calls.counters().rerun == 1);
}

TEST_CASE("a draining worker gets no more calls") {
  FakeLease lease(2);
  auto input = lease.allocate(8);
  lease.workers[0]->reply(wire::ReplyKind::draining, 0, 0, 0);
  lease.progress();
  for (int i = 0; i < 3; ++i) CHECK(lease.submit(input, lease.allocate(8)).ok());
  CHECK(lease.workers[0]->calls.empty());
  CHECK(lease.workers[1]->calls.size() == 3);
}

TEST_CASE("a lost worker: what is told of its calls") {
  FakeLease lease(1);
  auto input = lease.allocate(8);
  std::vector<CallHandle> handles;
  for (int i = 0; i < 3; ++i) handles.push_back(lease.submit(input, lease.allocate(8)).value());
  FakeWorker& worker = *lease.workers[0];

  SECTION("killed: all may have run") {
    worker.go_down();
    lease.progress();
    for (const CallHandle call : handles) CHECK(lease.take(call) == code(Errc::worker_lost));
  }
  SECTION("crashed in the second: the first is lost, the third has not started") {
    worker.say_last({.slot = static_cast<std::uint16_t>(worker.calls[1].slot),
                     .generation = worker.calls[1].generation,
                     .signal = SIGSEGV});
    worker.go_down();
    lease.progress();
    CHECK(lease.take(handles[0]) == code(Errc::worker_lost));
    CHECK(lease.calls.find(handles[1])->signal == SIGSEGV);
    CHECK(lease.take(handles[1]) == code(Errc::function_failed));
    CHECK(lease.status(handles[2]) == FakeLease::pending);
    lease.connect(0);
    lease.progress();
    REQUIRE(lease.workers[0]->calls.size() == 1);
    lease.echo(*lease.workers[0]);
    lease.progress();
    CHECK(lease.take(handles[2]) == FakeLease::success);
  }
  SECTION("ended in order after the first: the others have not started") {
    const FakeWorker::Request first = worker.calls[0];
    lease.echo(worker);
    worker.say_last({.slot = static_cast<std::uint16_t>(first.slot), .generation = first.generation});
    worker.go_down(Errc::closed);
    lease.progress();
    CHECK(lease.take(handles[0]) == FakeLease::success);
    CHECK(lease.status(handles[1]) == FakeLease::pending);
    CHECK(lease.status(handles[2]) == FakeLease::pending);
  }
  SECTION("last words that name no call of ours are ignored") {
    worker.say_last({.slot = 4000, .generation = 1, .signal = SIGSEGV});
    worker.go_down();
    lease.progress();
    for (const CallHandle call : handles) CHECK(lease.take(call) == code(Errc::worker_lost));
  }
  CHECK(lease.calls.take_lost().size() == 1);
}

TEST_CASE("without a worker a call waits for one until its deadline") {
  FakeLease lease(1);
  auto input = lease.allocate(8);
  lease.workers[0]->go_down();
  lease.progress();
  const CallHandle brief = lease.submit(input, lease.allocate(8), 1ms).value();
  const CallHandle patient = lease.submit(input, lease.allocate(8)).value();
  lease.now += 2ms;
  lease.progress();
  CHECK(lease.take(brief) == code(Errc::deadline_exceeded));
  lease.connect(0);
  lease.progress();
  REQUIRE(lease.workers[0]->calls.size() == 1);
  CHECK(lease.workers[0]->calls[0].header.deadline_us == 9'998'000);
  lease.echo(*lease.workers[0]);
  lease.progress();
  CHECK(lease.take(patient) == FakeLease::success);
}

TEST_CASE("an idempotent call runs again when its worker is lost") {
  FakeLease lease(2);
  auto input = lease.allocate(8);
  auto output = lease.allocate(8);
  CallSpec spec = lease.spec(input, output);
  spec.idempotent = true;
  const CallHandle call = lease.calls.submit(spec, lease.now).value();
  lease.workers[0]->go_down();
  lease.progress();
  REQUIRE(lease.workers[1]->calls.size() == 1);
  lease.echo(*lease.workers[1]);
  lease.progress();
  CHECK(lease.take(call) == FakeLease::success);
  CHECK(lease.calls.counters().rerun == 1);
}

TEST_CASE("a cancelled call") {
  FakeLease lease(1);
  auto input = lease.allocate(8);
  FakeWorker& worker = *lease.workers[0];
  SECTION("is asked for at the worker, also when the connection is full at first") {
    const CallHandle call = lease.submit(input, lease.allocate(8)).value();
    worker.room = 0;
    lease.calls.cancel(call);
    lease.calls.cancel(call);
    CHECK(worker.cancels.empty());
    worker.room = 10;
    lease.progress();
    lease.progress();
    REQUIRE(worker.cancels.size() == 1);
    CHECK(worker.cancels[0].generation == worker.calls[0].generation);
    lease.answer(worker, wire::ReplyKind::cancelled);
    lease.progress();
    CHECK(lease.take(call) == code(Errc::cancelled));
  }
  SECTION("is not run again") {
    const CallHandle call = lease.submit(input, lease.allocate(8)).value();
    lease.calls.cancel(call);
    lease.answer(worker, wire::ReplyKind::not_started);
    lease.progress();
    CHECK(lease.take(call) == code(Errc::cancelled));
  }
  SECTION("ends at once while it waits for a worker") {
    worker.go_down();
    lease.progress();
    const CallHandle call = lease.submit(input, lease.allocate(8)).value();
    lease.calls.cancel(call);
    CHECK(lease.take(call) == code(Errc::cancelled));
  }
}

TEST_CASE("the end of a lease ends every call and closes every connection") {
  FakeLease lease(2);
  auto input = lease.allocate(8);
  std::vector<CallHandle> handles;
  for (int i = 0; i < 4; ++i) handles.push_back(lease.submit(input, lease.allocate(8)).value());
  lease.calls.end(Errc::lease_revoked);
  for (const CallHandle call : handles) CHECK(lease.take(call) == code(Errc::lease_revoked));
  CHECK(lease.workers[0]->closed_by_client);
  CHECK(lease.workers[1]->closed_by_client);
  CHECK(lease.submit(input, lease.allocate(8)).error().code() == Errc::lease_revoked);
  CHECK(lease.calls.counters().failed == 4);
  CHECK(lease.calls.take_lost().size() == 2);
}

TEST_CASE("a new token goes to its worker, one at a time") {
  FakeLease lease(1);
  FakeWorker& worker = *lease.workers[0];
  lease.calls.renew(1, 77, {.token = {.lease = 1}});
  lease.progress();
  CHECK(worker.renewals.empty());
  lease.calls.renew(1, 1, {.token = {.lease = 2}});
  lease.calls.renew(1, 1, {.token = {.lease = 3}});
  REQUIRE(worker.renewals.size() == 1);  // The second waits until the first has left the buffer.
  lease.progress();
  REQUIRE(worker.renewals.size() == 2);
  CHECK(worker.renewals[1].token.lease == 3);
}

TEST_CASE("a dropped future's call goes on and its place is free afterwards") {
  FakeLease lease(1, 1);
  auto input = lease.allocate(8);
  auto output = lease.allocate(8);
  for (int i = 0; i < 3; ++i) {
    const CallHandle call = lease.submit(input, output).value();
    lease.calls.forget(*lease.calls.find(call));
    lease.echo(*lease.workers[0]);
    lease.progress();
    CHECK(lease.calls.find(call) == nullptr);
  }
  CHECK(lease.calls.counters().succeeded == 3);
}
