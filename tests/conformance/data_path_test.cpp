#include <poll.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <set>

#include "tests/conformance/harness.hpp"

using namespace conformance;

namespace {

/// Waits until `count` arrivals have come; fails on anything else.
std::vector<Completion> wait_arrivals(Side& side, std::size_t count) {
  std::vector<Completion> all;
  while (all.size() < count) {
    const std::vector<Completion> some = side.wait();
    REQUIRE_FALSE(some.empty());
    for (const Completion& completion : some) {
      REQUIRE(completion.kind == Completion::Kind::arrival);
      all.push_back(completion);
    }
  }
  REQUIRE(all.size() == count);
  return all;
}

std::size_t offset_of(std::uint32_t slot) {
  return slot * slot_bytes;
}

}  // namespace

TEST_CASE("K in flight give K correct results") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  std::mt19937 random(11);
  for (std::uint32_t round = 0; round < 40; ++round) {
    constexpr std::uint32_t in_flight = slots / 2;
    std::array<std::size_t, in_flight> lengths{};
    for (std::uint32_t slot = 0; slot < in_flight; ++slot) {
      lengths[slot] = round % 4 == 3 ? random() % slot_bytes : random() % 512;
      side.fill(offset_of(slot), lengths[slot], round * 1000 + slot);
      side.write(offset_of(slot), lengths[slot], pack(Kind::echo, slot, round));
    }
    std::set<std::uint32_t> seen;
    for (const Completion& arrival : wait_arrivals(side, in_flight)) {
      const std::uint32_t slot = slot_of(arrival.word);
      REQUIRE(number_of(arrival.word) == round);
      REQUIRE(seen.insert(slot).second);
      REQUIRE(arrival.length == lengths[slot]);
      REQUIRE(side.holds(offset_of(reply_slot(slot)), lengths[slot], round * 1000 + slot));
    }
  }
}

TEST_CASE("zero-length and maximal payloads arrive whole, both ways") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  side.write(0, 0, pack(Kind::echo, 3, 9));
  Completion arrival = wait_arrivals(side, 1)[0];
  REQUIRE(arrival.word == pack(Kind::echo, 3, 9));
  REQUIRE(arrival.length == 0);

  side.fill(0, region_bytes, 5);
  const std::uint64_t expected = digest(side.region.bytes());
  side.write(0, region_bytes, pack(Kind::sum, 0, 1));
  arrival = wait_arrivals(side, 1)[0];
  REQUIRE(arrival.length == sizeof(expected));
  REQUIRE(std::memcmp(side.region.data(), &expected, sizeof(expected)) == 0);

  side.write(0, 8, pack(Kind::fill, 0, 77));
  arrival = wait_arrivals(side, 1)[0];
  REQUIRE(arrival.length == region_bytes);
  REQUIRE(side.holds(0, region_bytes, 77));
}

TEST_CASE("a silent write is there when a later write announces it") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  side.fill(0, region_bytes, 8);
  const std::uint64_t expected = digest(side.region.bytes());
  constexpr std::size_t half = region_bytes / 2;
  REQUIRE(side.connection->write_silent(side.region.bytes().subspan(half), side.remote, half, {}).ok());
  side.write(0, half, pack(Kind::stall, 0, 0));
  side.write(0, 0, pack(Kind::sum, 0, 0));  // Of nothing: the digest of no byte.
  std::uint64_t got = 0;
  wait_arrivals(side, 1);
  std::memcpy(&got, side.region.data(), sizeof(got));
  REQUIRE(got == digest({}));
  side.fill(0, 8, 8);
  const std::array pieces{std::span<const std::byte>(side.region.data(), region_bytes)};
  REQUIRE(side.connection->write(pieces, side.remote, 0, pack(Kind::sum, 0, 0), {}).ok());
  wait_arrivals(side, 1);
  std::memcpy(&got, side.region.data(), sizeof(got));
  REQUIRE(got == expected);
}

TEST_CASE("two pieces are gathered into one write") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  std::uint32_t seed = 0;
  for (const std::size_t first : {0U, 1U, 48U, 5000U}) {
    for (const std::size_t second : {0U, 1U, 64U, 20'000U}) {
      side.fill(0, first + second, ++seed);
      std::memmove(side.region.data() + offset_of(2), side.region.data() + first, second);
      const std::array pieces{std::span<const std::byte>(side.region.data(), first),
                              std::span<const std::byte>(side.region.data() + offset_of(2), second)};
      REQUIRE(side.connection->write(pieces, side.remote, 0, pack(Kind::echo, 0, seed), {}).ok());
      REQUIRE(wait_arrivals(side, 1)[0].length == first + second);
      REQUIRE(side.holds(offset_of(reply_slot(0)), first + second, seed));
    }
  }
}

TEST_CASE("small writes need no registered memory and leave their buffer free") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  const std::size_t length = std::min<std::size_t>(side.transport->capabilities().inline_bytes, 4096);
  REQUIRE(length >= 64);
  for (std::uint32_t i = 0; i < 100; ++i) {
    std::vector<std::byte> buffer(length, static_cast<std::byte>(i));
    const std::array pieces{std::span<const std::byte>(buffer)};
    REQUIRE(side.connection->write(pieces, side.remote, 0, pack(Kind::echo, 0, i), {}).ok());
    std::ranges::fill(buffer, std::byte{0xEE});
    wait_arrivals(side, 1);
    const auto reply = side.region.bytes().subspan(offset_of(reply_slot(0)), length);
    REQUIRE(std::ranges::all_of(reply, [&](std::byte byte) { return byte == static_cast<std::byte>(i); }));
  }
}

TEST_CASE("the writer refuses what is out of range, and nothing is sent") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  const auto attempt = [&](std::uint64_t offset, std::size_t length) {
    const std::array pieces{std::span<const std::byte>(side.region.data(), length)};
    const Status written = side.connection->write(pieces, side.remote, offset, pack(Kind::echo, 0, 0), {});
    return written.ok() ? Errc{} : written.error().code();
  };
  REQUIRE(attempt(region_bytes, 1) == Errc::too_large);
  REQUIRE(attempt(region_bytes - 7, 8) == Errc::too_large);
  REQUIRE(attempt(UINT64_MAX, 8) == Errc::too_large);
  REQUIRE(attempt(UINT64_MAX - 3, 8) == Errc::too_large);
  REQUIRE(attempt(1, region_bytes) == Errc::too_large);
  const std::span<const std::byte> piece(side.region.data(), 1);
  const std::array three{piece, piece, piece};
  REQUIRE(side.connection->write(three, side.remote, 0, 0, {}).error().code() == Errc::invalid_argument);
  REQUIRE(side.connection->write_silent(side.region.bytes(), side.remote, 1, {}).error().code() ==
          Errc::too_large);

  side.write(0, 8, pack(Kind::echo, 0, 42));
  REQUIRE(wait_arrivals(side, 1)[0].word == pack(Kind::echo, 0, 42));
}

TEST_CASE("a write with a wrong key or beyond the peer's region changes nothing and is told") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  const bool wrong_key = GENERATE(true, false);
  {
    Side side(backend);
    side.connect(peer.address());
    RemoteRegion lie = side.remote;
    if (wrong_key) lie.key ^= 1;
    if (!wrong_key) lie.bytes *= 4;
    const std::array pieces{std::span<const std::byte>(side.region.data(), 64)};
    const Status written =
        side.connection->write(pieces, lie, wrong_key ? 0 : region_bytes + 4096, pack(Kind::echo, 0, 0), {});
    if (written && !excluded("refusal told", backend)) {
      REQUIRE(side.wait_down(limits::peer_lost_max + 2s).error == Errc::peer_lost);
    }
  }
  // The peer lives, its memory is as before, and it serves the next one.
  Side next(backend);
  next.connect(peer.address());
  const std::vector<std::byte> zeros(unwritten_bytes);
  const std::uint64_t expected = digest(zeros);
  next.write(0, 0, pack(Kind::sum_all, 0, 2));
  wait_arrivals(next, 1);
  REQUIRE(std::memcmp(next.region.data(), &expected, sizeof(expected)) == 0);
}

TEST_CASE("writes arrive in the order in which they were written") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  constexpr std::uint32_t total = 20'000;
  std::uint32_t sent = 0;
  std::uint32_t received = 0;
  while (received < total) {
    for (int i = 0; i < 100 && sent < total; ++i, ++sent) {
      side.write(0, sent % 7 == 0 ? 3000 : 16, pack(Kind::echo, 0, sent));
    }
    for (const Completion& arrival : side.wait()) {
      REQUIRE(arrival.kind == Completion::Kind::arrival);
      REQUIRE(number_of(arrival.word) == received++ % 0x10000);
    }
  }
}

TEST_CASE("a full queue is an error at once and takes writes again later") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  side.command(Kind::stall, 200);
  std::uint32_t sent = 0;
  const std::array pieces{std::span<const std::byte>(side.region.data(), 512)};
  Status written;
  while (sent < 1'000'000) {
    written = side.connection->write(pieces, side.remote, 0, pack(Kind::echo, 0, sent), {});
    if (!written) break;
    ++sent;
  }
  REQUIRE_FALSE(written.ok());
  REQUIRE(written.error().code() == Errc::queue_full);
  REQUIRE(sent >= side.transport->capabilities().writes_in_flight);
  for (std::uint32_t received = 0; received < sent;) {
    const std::vector<Completion> some = side.wait();
    REQUIRE_FALSE(some.empty());
    for (const Completion& arrival : some) {
      REQUIRE(arrival.kind == Completion::Kind::arrival);
      REQUIRE(number_of(arrival.word) == received++ % 0x10000);
    }
  }
  side.write(0, 8, pack(Kind::echo, 0, 7));
  REQUIRE(wait_arrivals(side, 1)[0].word == pack(Kind::echo, 0, 7));
}

TEST_CASE("signalled writes complete once, in order, with their context, and others are silent") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  constexpr std::uint64_t total = 3000;
  std::uint64_t next_sent = 0;
  std::uint64_t arrivals = 0;
  std::array<Completion, 16> batch;
  const auto reap = [&] {
    for (const Completion& completion : std::span(batch).first(side.connection->poll(batch))) {
      if (completion.kind == Completion::Kind::sent) {
        REQUIRE(completion.context == next_sent);
        next_sent += 3;
      } else {
        REQUIRE(completion.kind == Completion::Kind::arrival);
        ++arrivals;
      }
    }
    side.serve_if_due();
  };
  for (std::uint64_t i = 0; i < total; ++i) {
    const std::size_t length = i % 5 == 0 ? 30'000 : 20;
    const std::array pieces{std::span<const std::byte>(side.region.data(), length)};
    const Connection::WriteOptions options{.signal = i % 3 == 0, .context = i};
    while (!side.connection->write(pieces, side.remote, 0, pack(Kind::echo, 0, 0), options)) reap();
    reap();
  }
  const TimePoint deadline = SteadyClock::now() + patience;
  while ((arrivals < total || next_sent < total) && SteadyClock::now() < deadline) reap();
  REQUIRE(arrivals == total);
  REQUIRE(next_sent == total);
}

TEST_CASE("no wake-up is lost, however arming and arrivals interleave") {
  const std::string backend = GENERATE(from_range(backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side(backend);
  side.connect(peer.address());
  std::mt19937 random(5);
  std::array<Completion, 16> batch;
  int sleeps = 0;
  for (std::uint32_t round = 0; round < 6000; ++round) {
    const std::uint32_t burst = 1 + random() % 3;
    for (std::uint32_t i = 0; i < burst; ++i) side.write(0, random() % 300, pack(Kind::echo, 0, round));
    for (std::uint32_t spin = random() % 300; spin > 0; --spin) cpu_relax();
    for (std::uint32_t received = 0; received < burst;) {
      const std::size_t count = side.connection->poll(batch);
      for (const Completion& completion : std::span(batch).first(count)) {
        REQUIRE(completion.kind == Completion::Kind::arrival);
        REQUIRE(completion.word == pack(Kind::echo, 0, round));
        ++received;
      }
      if (count > 0 || received == burst || !side.connection->arm()) continue;
      pollfd event{side.connection->descriptor(), POLLIN, 0};
      ++sleeps;
      REQUIRE(::poll(&event, 1, 5000) == 1);  // Both sides sleep: a lost wake-up would last.
    }
    side.serve_if_due();
  }
  REQUIRE(sleeps > 0);
}
