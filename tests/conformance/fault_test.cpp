#include <algorithm>
#include <array>

#include "runtime/transport/fault/fault_transport.hpp"
#include "tests/conformance/harness.hpp"

using namespace conformance;

namespace {

/// What comes back of 800 echoes: a silence means that one was dropped on the way. Doubled ones counted,
/// they are fewer than any backend takes at once, so that a full queue is the decorator's alone. Faults are
/// this side's: the peer runs the plain backend.
struct Outcome {
  std::vector<std::uint32_t> arrivals;
  std::vector<std::uint32_t> refused;
  std::size_t broken_at = SIZE_MAX;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

constexpr std::uint32_t total = 800;

Outcome observe(const std::string& rules, std::uint64_t seed, const std::string& backend) {
  const PeerProcess peer(backend);
  Side side("fault:" + std::to_string(seed) + ":" + rules + ":" + backend);
  side.connect(peer.address());
  Outcome outcome;
  const std::array pieces{std::span<const std::byte>(side.region.data(), 8)};
  for (std::uint32_t i = 0; i < total && outcome.broken_at == SIZE_MAX; ++i) {
    const Status written = side.connection->write(pieces, side.remote, 0, pack(Kind::echo, 0, i), {});
    if (written) continue;
    if (written.error().code() == Errc::queue_full) outcome.refused.push_back(i);
    if (written.error().code() == Errc::peer_lost) outcome.broken_at = i;
  }
  if (outcome.broken_at != SIZE_MAX) {
    REQUIRE(side.wait_down(patience).error == Errc::peer_lost);
    return outcome;
  }
  // A word that no rule touches ends the row: the peer closes behind it.
  while (!side.connection->write(pieces, side.remote, 0, pack(Kind::close, 0, 0), {})) {
  }
  while (true) {
    const std::vector<Completion> some = side.wait();
    REQUIRE_FALSE(some.empty());
    for (const Completion& completion : some) {
      if (completion.kind == Completion::Kind::down) return outcome;
      outcome.arrivals.push_back(number_of(completion.word));
    }
  }
}

bool plausible(std::size_t count, double probability) {
  const double expected = probability * total;
  return static_cast<double>(count) > expected / 2 && static_cast<double>(count) < expected * 2;
}

}  // namespace

TEST_CASE("the fault decorator repeats itself for a seed and differs for another") {
  const std::string backend = GENERATE(from_range(plain_backends()));
  const std::string rules = "drop=0.1,dup=0.1,full=0.1";
  const Outcome first = observe(rules, 7, backend);
  REQUIRE(observe(rules, 7, backend) == first);
  REQUIRE_FALSE(observe(rules, 8, backend) == first);
}

TEST_CASE("each rule of the fault decorator has its effect and no other") {
  const std::string backend = GENERATE(from_range(plain_backends()));
  CAPTURE(backend);
  std::vector<std::uint32_t> all(total);
  for (std::uint32_t i = 0; i < total; ++i) all[i] = i;

  const Outcome plain = observe("", 3, backend);
  REQUIRE(plain.arrivals == all);
  REQUIRE(plain.refused.empty());

  const Outcome dropped = observe("drop=0.1", 3, backend);
  REQUIRE(std::ranges::includes(all, dropped.arrivals));
  REQUIRE(plausible(total - dropped.arrivals.size(), 0.1));

  Outcome doubled = observe("dup=0.1", 3, backend);
  REQUIRE(std::ranges::is_sorted(doubled.arrivals));
  REQUIRE(plausible(doubled.arrivals.size() - total, 0.1));
  doubled.arrivals.erase(std::unique(doubled.arrivals.begin(), doubled.arrivals.end()),
                         doubled.arrivals.end());
  REQUIRE(doubled.arrivals == all);

  Outcome full = observe("full=0.1", 3, backend);
  REQUIRE(plausible(full.refused.size(), 0.1));
  full.arrivals.insert(full.arrivals.end(), full.refused.begin(), full.refused.end());
  std::ranges::sort(full.arrivals);
  REQUIRE(full.arrivals == all);

  REQUIRE(observe("error=0.01", 3, backend).broken_at < total);
  REQUIRE(observe("delay=0.01/1ms", 3, backend).arrivals == all);
}

TEST_CASE("a delayed arrival comes later and still wakes its owner") {
  const std::string backend = GENERATE(from_range(plain_backends()));
  CAPTURE(backend);
  const PeerProcess peer(backend);
  Side side("fault:1:delay=1/50ms:" + backend);
  side.connect(peer.address());
  const TimePoint before = SteadyClock::now();
  side.write(0, 8, pack(Kind::echo, 0, 1));
  REQUIRE(side.wait().size() == 1);
  REQUIRE(SteadyClock::now() - before >= 50ms);
}

TEST_CASE("a fault transport's name is checked") {
  const auto rules = fault::parse("fault:9:drop=0.5,delay=0.25/3ms,dup=1,full=0,error=1e-3:fault:1::shm");
  REQUIRE(rules.ok());
  REQUIRE(rules->seed == 9);
  REQUIRE(rules->rules.drop == 0.5);
  REQUIRE(rules->rules.delay == 0.25);
  REQUIRE(rules->rules.delay_time == 3ms);
  REQUIRE(rules->rules.duplicate == 1);
  REQUIRE(rules->rules.error == 0.001);
  REQUIRE(rules->backend == "fault:1::shm");
  for (const char* name : {"fault:", "fault:x::shm", "fault:1:shm", "fault:1::", "fault:1:drop=2:shm",
                           "fault:1:drop=-0.1:shm", "fault:1:drop:shm", "fault:1:delay=0.1:shm",
                           "fault:1:delay=0.1/5:shm", "fault:1:delay=0.1/5h:shm", "fault:1:lose=1:shm"}) {
    CAPTURE(name);
    REQUIRE(open(name).error().code() == Errc::invalid_argument);
  }
  REQUIRE(open("fault:1::carrier-pigeon").error().code() == Errc::not_found);
  REQUIRE(open("carrier-pigeon").error().code() == Errc::not_found);
}
