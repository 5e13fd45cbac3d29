#include "runtime/manager/site_clock.hpp"

#include "tests/catch.hpp"

using namespace sublet;
using namespace std::chrono_literals;
using manager::SiteClock;

TEST_CASE("the site's clock goes on over a restart, whatever the wall clock says") {
  const TimePoint start(100s);
  const SiteClock first = SiteClock::resume(false, 0ns, lease::Time(), lease::Time(5000s), start);
  REQUIRE(first.at(start) == lease::Time(5000s));
  REQUIRE(first.at(start + 7s) == lease::Time(5007s));
  for (const auto wall : {lease::Time(1s), lease::Time(90'000s)}) {
    const SiteClock again = SiteClock::resume(true, first.offset(), first.at(start + 7s), wall, start + 20s);
    REQUIRE(again.at(start + 20s) == lease::Time(5020s));
  }
}

TEST_CASE("after a boot it takes the wall clock, and never runs backwards") {
  const TimePoint boot(3s);
  REQUIRE(SiteClock::resume(false, 99s, lease::Time(5000s), lease::Time(6000s), boot).at(boot) ==
          lease::Time(6000s));
  REQUIRE(SiteClock::resume(false, 99s, lease::Time(5000s), lease::Time(10s), boot).at(boot) ==
          lease::Time(5000s));
}
