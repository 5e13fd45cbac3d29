#include <sys/wait.h>

#include <cstring>
#include <set>

#include "tests/catch.hpp"
#include "tests/integration/worker_harness.hpp"
#include "tests/transports.hpp"

using namespace sublet;
using namespace sublet::test;
using wire::ReplyKind;
using wire::RequestKind;

namespace {

std::string number(std::uint32_t value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

}  // namespace

TEST_CASE("a worker lets one client in, with the right token, once") {
  const std::string transport = GENERATE(from_range(transports()));
  CAPTURE(transport);
  WorkerHarness harness;
  auto worker = harness.start();
  const wire::SignedToken good = harness.token(worker);
  const auto refused = [&](const wire::Hello& hello) {
    RawClient client(transport, harness, worker);
    const Status status = client.connect(wire::bytes_of(hello));
    REQUIRE_FALSE(status.ok());
    REQUIRE_FALSE(status.error().detail().empty());
    return status.error().code();
  };
  const wire::Hello hello{.slots_log2 = 4, .slot_bytes_log2 = 12, .token = good};

  wire::Hello foreign = hello;
  foreign.magic = 0x12345678;
  REQUIRE(refused(foreign) == Errc::protocol_error);
  wire::Hello later = hello;
  later.version = 2;
  REQUIRE(refused(later) == Errc::version_mismatch);
  wire::Hello forged = hello;
  forged.token.token.cores = 64;
  REQUIRE(refused(forged) == Errc::permission_denied);
  auto other = harness.start();
  wire::Hello others = hello;
  others.token = harness.token(other);
  REQUIRE(refused(others) == Errc::permission_denied);
  wire::Hello huge = hello;
  huge.slots_log2 = 12;
  huge.slot_bytes_log2 = 26;
  REQUIRE(refused(huge) == Errc::too_large);
  wire::Hello odd = hello;
  odd.slots_log2 = 200;
  REQUIRE(refused(odd) == Errc::invalid_argument);
  harness.refuse_with = Error(Errc::no_capacity, "no cores here");
  REQUIRE(refused(hello) == Errc::no_capacity);
  harness.refuse_with.reset();
  {
    RawClient brief(transport, harness, worker);
    // On verbs zeros follow what was sent: a whole hello with a token of nobody's.
    const Errc brevity = transport == "verbs" ? Errc::permission_denied : Errc::protocol_error;
    REQUIRE(brief.connect(wire::bytes_of(hello).first(20)).error().code() == brevity);
  }

  RawClient client(transport, harness, worker);
  REQUIRE(client.open(good).ok());
  REQUIRE(harness.expect<local::Serving>(worker).has_value());
  REQUIRE(refused(hello) == Errc::permission_denied);  // Replayed while it is in use.
  REQUIRE(client.send(RequestKind::invoke, 3, 1, client.header(echo, 3), "still served").ok());
  const auto reply = client.next();
  REQUIRE(reply.has_value());
  REQUIRE(client.output(*reply) == "still served");

  client.close();
  const auto ended = harness.expect<local::Ended>(worker);
  REQUIRE(ended.has_value());
  REQUIRE(ended->reason == local::EndReason::released);
  REQUIRE(harness.wait_exit(worker) == 0);
  REQUIRE(harness.usage(worker).calls == 1);
  RawClient replay(transport, harness, worker);
  REQUIRE_FALSE(replay.connect(wire::bytes_of(hello)).ok());  // Replayed afterwards: nobody is there.
}

TEST_CASE("calls in flight give as many right results, headers are sent once, duplicates run once") {
  const std::string transport = GENERATE(from_range(transports()));
  const bool preload = GENERATE(false, true);
  CAPTURE(transport, preload);
  WorkerHarness harness;
  auto worker = harness.start(preload);
  RawClient client(transport, harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  for (std::uint16_t round = 1; round <= 50; ++round) {
    const RequestKind kind = round == 1 ? RequestKind::invoke : RequestKind::invoke_again;
    for (std::uint16_t slot = 0; slot < 16; ++slot) {
      const std::string payload = "call " + std::to_string(round) + " of slot " + std::to_string(slot);
      REQUIRE(client.send(kind, slot, round, client.header(echo, slot), payload).ok());
    }
    std::set<std::uint16_t> seen;
    while (seen.size() < 16) {
      const auto reply = client.next();
      REQUIRE(reply.has_value());
      REQUIRE(reply->kind() == ReplyKind::ok);
      REQUIRE(reply->word.generation == round);
      REQUIRE(seen.insert(reply->word.slot).second);
      REQUIRE(client.output(*reply) ==
              "call " + std::to_string(round) + " of slot " + std::to_string(reply->word.slot));
    }
  }
  // A duplicate of a call that ran is not run again: the next reply is the next call's.
  REQUIRE(client.send(RequestKind::invoke_again, 5, 50, client.header(echo, 5), "again").ok());
  REQUIRE(client.send(RequestKind::invoke_again, 6, 51, client.header(echo, 6), "next").ok());
  const auto reply = client.next();
  REQUIRE(reply.has_value());
  REQUIRE(reply->word.slot == 6);
}

TEST_CASE("a header out of range is refused with a text and the next call runs") {
  const std::string transport = GENERATE(from_range(transports()));
  CAPTURE(transport);
  WorkerHarness harness;
  auto worker = harness.start();
  RawClient client(transport, harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  std::uint16_t generation = 0;
  const auto refused = [&](const wire::RequestHeader& header, const std::string& payload) {
    REQUIRE(client.send(RequestKind::invoke, 1, ++generation, header, payload).ok());
    const auto reply = client.next();
    REQUIRE(reply.has_value());
    REQUIRE(reply->kind() == ReplyKind::refused);
    return client.message(*reply);
  };
  const wire::RequestHeader good = client.header(echo, 1);
  wire::RequestHeader bad = good;
  bad.entry = entries;
  REQUIRE(refused(bad, "x").find("entry") != std::string::npos);
  bad = good;
  bad.flags = 0x80;
  REQUIRE(refused(bad, "x").find("flags") != std::string::npos);
  bad = good;
  bad.output_offset = client.region.size();
  REQUIRE(refused(bad, "x").find("output") != std::string::npos);
  bad = good;
  bad.output_offset = ~std::uint64_t{0} - 10;
  REQUIRE(refused(bad, "x").find("output") != std::string::npos);
  bad = good;
  bad.output_capacity = ~std::uint64_t{0};
  REQUIRE(refused(bad, "x").find("output") != std::string::npos);
  bad = good;
  bad.deadline_us = 0;
  REQUIRE(refused(bad, "x").find("deadline") != std::string::npos);
  bad.deadline_us = ~std::uint64_t{0};
  REQUIRE(refused(bad, "x").find("deadline") != std::string::npos);
  bad = good;
  bad.flags = wire::flag_large_input;
  bad.input_offset = 0;  // The control area is no input.
  bad.input_bytes = 16;
  REQUIRE(refused(bad, "").find("large area") != std::string::npos);
  bad.input_offset = client.remote.bytes - 8;
  REQUIRE(refused(bad, "").find("large area") != std::string::npos);
  bad.input_offset = ~std::uint64_t{0} - 4;
  REQUIRE(refused(bad, "").find("large area") != std::string::npos);
  REQUIRE(refused(good, std::string(4096, 'x')).find("slot") != std::string::npos);
  REQUIRE(client.send(RequestKind::invoke_again, 2, 1, good, "x").ok());
  const auto headless = client.next();
  REQUIRE(headless.has_value());
  REQUIRE(headless->kind() == ReplyKind::refused);
  REQUIRE(client.send(RequestKind::invoke, 1, ++generation, good, "fine").ok());
  const auto reply = client.next();
  REQUIRE(reply.has_value());
  REQUIRE(client.output(*reply) == "fine");
}

TEST_CASE("words that no client says end the connection, and the worker with it") {
  const std::string transport = GENERATE(from_range(transports()));
  const auto word =
      GENERATE(wire::Word{0, 0, 0}, wire::Word{15, 4095, 65535}, wire::Word{1, 4000, 1}, wire::Word{3, 0, 0});
  CAPTURE(transport, word.kind);
  WorkerHarness harness;
  auto worker = harness.start(true);
  RawClient client(transport, harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  REQUIRE(client.send_word(static_cast<RequestKind>(word.kind), word.slot, word.generation).ok());
  REQUIRE_FALSE(client.next().has_value());
  REQUIRE(client.down());
  const auto ended = harness.expect<local::Ended>(worker);
  REQUIRE(ended.has_value());
  REQUIRE(ended->reason == local::EndReason::client_lost);
}

TEST_CASE("failures of a function are typed and leave the worker alive") {
  const std::string transport = GENERATE(from_range(transports()));
  CAPTURE(transport);
  WorkerHarness harness;
  auto worker = harness.start();
  RawClient client(transport, harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  REQUIRE(client.send(RequestKind::invoke, 0, 1, client.header(fail, 0), "").ok());
  auto reply = client.next();
  REQUIRE(reply.has_value());
  REQUIRE(reply->kind() == ReplyKind::function_failed);
  REQUIRE(client.message(*reply) == "failed as asked");
  wire::RequestHeader narrow = client.header(echo, 1);
  narrow.output_capacity = 3;
  REQUIRE(client.send(RequestKind::invoke, 1, 1, narrow, "longer than three").ok());
  reply = client.next();
  REQUIRE(reply.has_value());
  REQUIRE(reply->kind() == ReplyKind::function_failed);
}

TEST_CASE("a crash names its call in the worker's last words") {
  const std::string transport = GENERATE(from_range(transports()));
  const auto entry = GENERATE(crash, overflow_stack);
  CAPTURE(transport, entry);
  WorkerHarness harness;
  auto worker = harness.start();
  RawClient client(transport, harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  REQUIRE(client.send(RequestKind::invoke, 2, 1, client.header(echo, 2), "before").ok());
  REQUIRE(client.send(RequestKind::invoke, 7, 9, client.header(entry, 7), "").ok());
  const auto before = client.next();
  REQUIRE(before.has_value());
  REQUIRE(before->word.slot == 2);
  REQUIRE_FALSE(client.next().has_value());
  REQUIRE(client.down());
  const auto last = client.last_words();
  REQUIRE(last.has_value());
  REQUIRE(last->magic == wire::LastWords::magic_value);
  REQUIRE(last->slot == 7);
  REQUIRE(last->generation == 9);
  REQUIRE(last->signal == SIGSEGV);
  const auto status = harness.wait_exit(worker);
  REQUIRE(status.has_value());
  REQUIRE(WIFSIGNALED(*status));
}

TEST_CASE("a call that overruns its deadline is ended, queued ones are told that they did not start") {
  const std::string transport = GENERATE(from_range(transports()));
  CAPTURE(transport);
  WorkerHarness harness;
  auto worker = harness.start();
  RawClient client(transport, harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  wire::RequestHeader brief = client.header(spin, 0);
  brief.deadline_us = 30'000;
  REQUIRE(client.send(RequestKind::invoke, 0, 1, brief, number(60'000)).ok());
  REQUIRE(client.send(RequestKind::invoke, 1, 1, client.header(echo, 1), "queued").ok());
  std::set<std::uint8_t> kinds;
  while (const auto reply = client.next()) kinds.insert(reply->word.kind);
  REQUIRE(client.down());
  REQUIRE(kinds.count(static_cast<std::uint8_t>(ReplyKind::deadline_exceeded)) == 1);
  REQUIRE(kinds.count(static_cast<std::uint8_t>(ReplyKind::not_started)) == 1);
  const auto ended = harness.expect<local::Ended>(worker);
  REQUIRE(ended.has_value());
  REQUIRE(ended->reason == local::EndReason::overrun);
}

TEST_CASE("an agent's order drains: the running call finishes, queued ones are handed back") {
  const std::string transport = GENERATE(from_range(transports()));
  CAPTURE(transport);
  WorkerHarness harness;
  auto worker = harness.start();
  RawClient client(transport, harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  REQUIRE(harness.expect<local::Serving>(worker).has_value());
  REQUIRE(client.send(RequestKind::invoke, 0, 1, client.header(spin, 0), number(400)).ok());
  REQUIRE(client.send(RequestKind::invoke, 1, 1, client.header(echo, 1), "queued").ok());
  REQUIRE(local::send(worker.socket.get(), local::End{.reason = local::EndReason::drained}).ok());
  std::vector<RawClient::Reply> replies;
  while (const auto reply = client.next()) {
    if (reply->kind() != ReplyKind::draining) replies.push_back(*reply);
  }
  REQUIRE(client.down());
  if (replies.size() != 2) {  // The order came before any call was seen: the last words say that none began.
    REQUIRE(replies.empty());
    const auto last = client.last_words();
    REQUIRE(last.has_value());
    REQUIRE(last->magic == wire::LastWords::magic_value);
    REQUIRE(last->signal == 0);
    REQUIRE(last->slot == wire::LastWords::no_slot);
  }
  for (const auto& reply : replies) {
    const bool queued = reply.word.slot == 1;
    // The order may come before the first call was seen: then neither has started.
    if (queued) REQUIRE(reply.kind() == ReplyKind::not_started);
    if (!queued) REQUIRE((reply.kind() == ReplyKind::ok || reply.kind() == ReplyKind::not_started));
  }
  const auto ended = harness.expect<local::Ended>(worker);
  REQUIRE(ended.has_value());
  REQUIRE(ended->reason == local::EndReason::drained);
  REQUIRE(harness.wait_exit(worker) == 0);
}

TEST_CASE("a lease ends by its time, unless a newer token of the same lease renews it") {
  const std::string transport = GENERATE(from_range(transports()));
  CAPTURE(transport);
  WorkerHarness harness;
  auto worker = harness.start(true);
  RawClient client(transport, harness, worker);
  const wire::SignedToken first = harness.token(worker, 2000);
  REQUIRE(client.open(first).ok());
  wire::SignedToken forged = harness.token(worker, 600'000);
  forged.mac[0] ^= std::byte{1};
  client.renew(forged);
  const TimePoint opened = SteadyClock::now();
  REQUIRE(client.send(RequestKind::invoke, 0, 1, client.header(echo, 0), "in time").ok());
  REQUIRE(client.next().has_value());
  client.renew(harness.token(worker, 4000));
  while (client.next().has_value()) {
  }
  REQUIRE(client.down());
  const auto lived = SteadyClock::now() - opened;
  REQUIRE(lived > std::chrono::milliseconds(2500));  // Longer than the first token alone,
  REQUIRE(lived < std::chrono::seconds(60));         // shorter than the forged one.
  const auto ended = harness.expect<local::Ended>(worker);
  REQUIRE(ended.has_value());
  REQUIRE(ended->reason == local::EndReason::expired);
}

TEST_CASE("a cancelled call that has not begun does not run") {
  const std::string transport = GENERATE(from_range(transports()));
  CAPTURE(transport);
  WorkerHarness harness;
  auto worker = harness.start();
  RawClient client(transport, harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  REQUIRE(client.send(RequestKind::invoke, 0, 1, client.header(spin, 0), number(300)).ok());
  REQUIRE(client.send(RequestKind::invoke, 1, 1, client.header(echo, 1), "never").ok());
  REQUIRE(client.send_word(RequestKind::cancel, 1, 2).ok());  // Of another generation: ignored.
  REQUIRE(client.send_word(RequestKind::cancel, 1, 1).ok());
  const auto spun = client.next();
  REQUIRE(spun.has_value());
  REQUIRE(spun->kind() == ReplyKind::ok);
  const auto cancelled = client.next();
  REQUIRE(cancelled.has_value());
  REQUIRE(cancelled->kind() == ReplyKind::cancelled);
}

TEST_CASE("a worker without its agent ends, busy or not") {
  const bool busy = GENERATE(false, true);
  WorkerHarness harness;
  auto worker = harness.start(true);
  RawClient client("shm", harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  if (busy) REQUIRE(client.send(RequestKind::invoke, 0, 1, client.header(spin, 0), number(60'000)).ok());
  const pid_t pid = worker.pid;
  worker.socket.reset();
  int status = 0;
  const TimePoint end = SteadyClock::now() + std::chrono::seconds(20);
  while (::waitpid(pid, &status, WNOHANG) == 0 && SteadyClock::now() < end) {
  }
  REQUIRE(WIFEXITED(status));
  REQUIRE_FALSE(client.next().has_value());
  REQUIRE(client.down());
}

TEST_CASE("while a function computes for ten seconds, large inputs land, calls queue and heartbeats go on") {
  const std::string transport = GENERATE(from_range(transports()));
  CAPTURE(transport);
  WorkerHarness harness;
  auto worker = harness.start();
  RawClient client(transport, harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  const TimePoint begun = SteadyClock::now();
  REQUIRE(client.send(RequestKind::invoke, 0, 1, client.header(spin, 0), number(10'000)).ok());

  // Far more than any socket buffers hold: it is out only when the worker takes it in.
  // An emulated device moves some MiB a second.
  const std::uint64_t writes = transport == "verbs" ? 8 : 48;
  const std::uint64_t large = wire::control_bytes + 16 * 4096;
  std::uint64_t posted = 0;
  std::uint64_t sent = 0;
  std::array<transport::Completion, 1> completion;
  while (sent < writes && SteadyClock::now() - begun < std::chrono::seconds(9)) {
    client.service();
    const std::uint64_t offset = large + posted % 6 * client.region.size();
    if (posted < writes &&
        client.connection_
            ->write_silent(client.region.bytes(), client.remote, offset, {.signal = true, .context = posted})
            .ok()) {
      ++posted;
    }
    if (client.connection_->poll(completion) == 1) {
      REQUIRE(completion[0].kind == transport::Completion::Kind::sent);
      ++sent;
    }
  }
  REQUIRE(sent == writes);
  REQUIRE(client.send(RequestKind::invoke, 1, 1, client.header(echo, 1), "meanwhile").ok());

  const auto spun = client.next();
  REQUIRE(spun.has_value());
  REQUIRE(spun->kind() == ReplyKind::ok);
  REQUIRE(SteadyClock::now() - begun >= std::chrono::seconds(10));
  const auto echoed = client.next();
  REQUIRE(echoed.has_value());
  REQUIRE(client.output(*echoed) == "meanwhile");
}

TEST_CASE(
    "a worker that leaves in order names the last call that it answered, so that later ones did not start") {
  const std::string transport = GENERATE(from_range(transports()));
  const bool answered = GENERATE(false, true);
  CAPTURE(transport, answered);
  WorkerHarness harness;
  auto worker = harness.start(true);
  RawClient client(transport, harness, worker);
  REQUIRE(client.open(harness.token(worker)).ok());
  if (answered) {
    REQUIRE(client.send(RequestKind::invoke, 3, 7, client.header(echo, 3), "before").ok());
    REQUIRE(client.next().has_value());
  }
  REQUIRE(local::send(worker.socket.get(), local::End{.reason = local::EndReason::drained}).ok());
  while (client.next().has_value()) {
  }
  REQUIRE(client.down());
  const auto last = client.last_words();
  REQUIRE(last.has_value());
  REQUIRE(last->signal == 0);
  REQUIRE(last->slot == (answered ? 3 : wire::LastWords::no_slot));
  if (answered) REQUIRE(last->generation == 7);
}
