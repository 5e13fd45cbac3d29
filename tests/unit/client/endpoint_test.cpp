#include "client/endpoint.hpp"

#include "tests/catch.hpp"

using namespace sublet;
using client::Choice;
using client::Way;

namespace {

api::GrantedWorker worker(std::map<std::string, std::string> endpoints) {
  api::GrantedWorker worker;
  worker.node_name = "n";
  worker.machine = "boot";
  worker.worker = 3;
  worker.endpoints = std::move(endpoints);
  return worker;
}

/// "verbs preferred, tcp", and for a way without an address "verbs preferred (why)".
std::string shown(const Result<std::vector<Way>>& ways) {
  std::string text;
  for (const Way& way : ways.value()) {
    text += (text.empty() ? "" : ", ") + way.transport + (way.wish.empty() ? "" : " " + way.wish);
    if (way.address.empty()) text += " (" + way.obstacle + ")";
  }
  return text;
}

const api::GrantedWorker far = worker({{"tcp", "10.0.0.1:1"}, {"verbs", "10.0.0.1:2"}, {"shm", "/dev/null"}});

}  // namespace

TEST_CASE("without wishes shm comes first on one machine, then verbs, then tcp") {
  CHECK(shown(client::ways_to(far, {}, "boot")) == "shm, verbs, tcp");
  CHECK(shown(client::ways_to(far, {}, "other")) == "verbs, tcp");
  CHECK(shown(client::ways_to(worker({{"tcp", "10.0.0.1:1"}}), {}, "boot")) == "tcp");
}

TEST_CASE("wishes order the ways, and what was wished for and is none says why") {
  CHECK(shown(client::ways_to(far, {.prefer = {"tcp"}}, "boot")) == "tcp preferred, shm, verbs");
  CHECK(shown(client::ways_to(far, {.require = {"tcp", "verbs"}, .prefer = {"verbs"}}, "boot")) ==
        "verbs preferred, tcp required");
  CHECK(shown(client::ways_to(far, {.forbid = {"tcp", "verbs"}}, "boot")) == "shm");
  CHECK(shown(client::ways_to(far, {.prefer = {"shm"}}, "other")) ==
        "shm preferred (the worker is on another machine), verbs, tcp");
  CHECK(shown(client::ways_to(worker({{"tcp", "10.0.0.1:1"}}), {.prefer = {"verbs"}}, "boot")) ==
        "verbs preferred (the worker does not offer it), tcp");
  CHECK(shown(client::ways_to(far, {.prefer = {"fault:1:drop=0.1:tcp"}}, "other")) ==
        "fault:1:drop=0.1:tcp preferred, verbs");
  const auto none = client::ways_to(worker({{"shm", "/dev/null"}}), {}, "other");
  REQUIRE(none.error().code() == Errc::not_found);
  CHECK_THAT(none.error().detail(),
             Catch::Contains("worker 3 on node n offers shm at /dev/null on another machine") &&
                 Catch::Contains("allows only: shm, verbs, tcp"));
}

TEST_CASE("a choice says why it fell on a way, and whether it fell back to it") {
  const Way wished{.transport = "verbs", .address = "a", .obstacle = "", .wish = "preferred"};
  const Way plain{.transport = "tcp", .address = "b", .obstacle = "", .wish = ""};
  Choice choice;
  CHECK(choice.why(wished) == "preferred");
  CHECK(choice.why(plain) == "the best that the worker offers");
  CHECK(!choice.fell_back());
  SECTION("what was wished for was not to be had") {
    choice.pass_over(wished, "no device on this machine", false);
    CHECK(choice.why(plain) == "verbs refused: no device on this machine");
    CHECK(choice.fell_back());
  }
  SECTION("what nobody wished for did not work") {
    choice.pass_over(plain, "timeout", true);
    CHECK(choice.why(wished) == "tcp failed: timeout");
    CHECK(choice.fell_back());
  }
  SECTION("what nobody wished for is not there") {
    choice.pass_over(plain, "libfabric is missing", false);
    CHECK(choice.why(wished) == "tcp refused: libfabric is missing");
    CHECK(!choice.fell_back());
  }
}

TEST_CASE("a decorated transport is the one that it decorates") {
  CHECK(client::base_name("tcp") == "tcp");
  CHECK(client::base_name("fault:1:drop=0.1:shm") == "shm");
  CHECK(client::base_name("fault:1:drop=0.1:fabric:efa") == "fabric:efa");
  CHECK(client::base_name("fabric:efa") == "fabric:efa");
  CHECK(client::base_name("fault:1") == "fault:1");
}

TEST_CASE("what this machine cannot do at all is refused before the manager is asked") {
  CHECK(client::check_here({}).ok());
  CHECK(client::check_here({.require = {"pigeon", "tcp"}}).ok());
  CHECK(client::check_here({.require = {"fabric:efa"}}).ok());
  const Status refused = client::check_here({.require = {"pigeon", "fault:1:drop=0.1:horse"}});
  REQUIRE(refused.error().code() == Errc::unavailable);
  CHECK_THAT(refused.error().detail(),
             Catch::Contains("requires pigeon, fault:1:drop=0.1:horse") && Catch::Contains("tcp"));
}
