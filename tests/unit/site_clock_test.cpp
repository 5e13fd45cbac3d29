// The manager's clock as an agent keeps it.
#include "executor/agent/site_clock.hpp"
#include "tests/catch.hpp"

using namespace sublet;
using agent::SiteClock;
using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr std::uint64_t start_ms = 1'800'000'000'000;
const TimePoint start{hours(10)};

/// The manager's true time at `at`, cut to milliseconds as it says it; `ahead`: how far it was set since.
std::uint64_t manager_ms(TimePoint at, milliseconds ahead = {}) {
  return start_ms +
         static_cast<std::uint64_t>(std::chrono::duration_cast<milliseconds>(at - start + ahead).count());
}

/// How far `when` is from the truth, for a time one minute after `now`.
std::chrono::nanoseconds error_at(const SiteClock& clock, TimePoint now, milliseconds ahead = {}) {
  const TimePoint truth = now + seconds(60);
  return std::chrono::abs(clock.when(manager_ms(truth, ahead), now).value() - truth);
}

/// One answer: the manager reads its clock at `late` of the round trip.
void hear(SiteClock& clock, TimePoint sent, microseconds round_trip, microseconds late,
          milliseconds ahead = {}) {
  clock.heard(sent, sent + round_trip, manager_ms(sent + late, ahead));
}

}  // namespace

TEST_CASE("before the manager was heard there is no time") {
  REQUIRE_FALSE(SiteClock().when(start_ms, start).has_value());
}

TEST_CASE("the quickest answer of the last minute is believed") {
  SiteClock clock;
  hear(clock, start, milliseconds(800), milliseconds(790));
  REQUIRE(error_at(clock, start + seconds(1)) < milliseconds(402));
  hear(clock, start + seconds(1), microseconds(200), microseconds(100));
  REQUIRE(error_at(clock, start + seconds(2)) < milliseconds(2));
  for (int second = 2; second < 50; ++second)
    hear(clock, start + seconds(second), milliseconds(900), milliseconds(1));
  REQUIRE(error_at(clock, start + seconds(50)) < milliseconds(2));
  // It is too old after a minute: the next best takes its place.
  hear(clock, start + seconds(70), milliseconds(20), milliseconds(0));
  REQUIRE(error_at(clock, start + seconds(71)) < milliseconds(12));
}

TEST_CASE("a manager with another clock is believed at once, and only then") {
  const auto ahead = GENERATE(milliseconds(hours(1)), milliseconds(-hours(1)), milliseconds(300));
  CAPTURE(ahead.count());
  SiteClock clock;
  hear(clock, start, microseconds(100), microseconds(50));
  hear(clock, start + seconds(1), milliseconds(5), milliseconds(1), ahead);
  REQUIRE(error_at(clock, start + seconds(2), ahead) < milliseconds(7));
  hear(clock, start + seconds(3), seconds(9), seconds(2), ahead);  // Stopped for a while: slow, not wrong.
  REQUIRE(error_at(clock, start + seconds(12), ahead) < milliseconds(7));
}

TEST_CASE("no time that anybody writes is further away than a lease may last") {
  SiteClock clock;
  hear(clock, start, microseconds(100), microseconds(50));
  REQUIRE(clock.when(~std::uint64_t{0}, start).value() == start + limits::lease_ms_max);
  REQUIRE(clock.when(0, start).value() == start - limits::lease_ms_max);
  clock.heard(start, start, ~std::uint64_t{0});
  REQUIRE(clock.when(start_ms, start).value() == start - limits::lease_ms_max);
}

TEST_CASE("answers in any number take bounded room and stay good") {
  SiteClock clock;
  TimePoint now = start;
  for (int i = 0; i < 100'000; ++i) {
    now += milliseconds(1);
    hear(clock, now, microseconds(10'000 + i), microseconds(5'000));
  }
  REQUIRE(error_at(clock, now + seconds(1)) < milliseconds(60));
}
