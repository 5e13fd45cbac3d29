#include "runtime/control/transports.hpp"

#include "tests/catch.hpp"

using namespace sublet;
using api::Transports;

TEST_CASE("wishes for transports that contradict each other are refused with what they are") {
  const auto complaint = [](const Transports& wishes) { return api::check(wishes).error().detail(); };
  REQUIRE(api::check({}).ok());
  REQUIRE(api::check({{"verbs", "tcp"}, {"tcp"}, {"shm"}}).ok());
  REQUIRE(complaint({{"tcp"}, {}, {"tcp"}}) == "transports.forbid names tcp, which require names too");
  REQUIRE(complaint({{}, {"tcp"}, {"tcp"}}) == "transports.forbid names tcp, which prefer names too");
  REQUIRE(complaint({{"tcp"}, {"verbs"}, {}}) ==
          "transports.prefer names verbs, which require does not allow");
  REQUIRE_THAT(complaint({{}, {"two words"}, {}}),
               Catch::Contains("transports.prefer must be at most 8 names"));
  REQUIRE_THAT(complaint({{}, {}, {""}}), Catch::Contains("transports.forbid"));
  REQUIRE_THAT(complaint({std::vector<std::string>(9, "tcp"), {}, {}}),
               Catch::Contains("transports.require"));
}

TEST_CASE("what is required excludes the rest, what is preferred nothing") {
  const Transports required{{"verbs", "shm"}, {"verbs"}, {}};
  REQUIRE((api::allows(required, "verbs") && api::allows(required, "shm") && !api::allows(required, "tcp")));
  REQUIRE(api::in_words(required) == "verbs or shm");
  const Transports preferred{{}, {"verbs"}, {}};
  REQUIRE((api::allows(preferred, "tcp") && api::in_words(preferred).empty()));
  const Transports forbidden{{}, {}, {"tcp", "shm"}};
  REQUIRE((api::allows(forbidden, "verbs") && !api::allows(forbidden, "tcp")));
  REQUIRE(api::in_words(forbidden) == "anything but tcp or shm");
}
