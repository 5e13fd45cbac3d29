// From what Slurm says to what is ordered of our nodes.

#include "runtime/manager/slurm_orders.hpp"

#include "runtime/base/limits.hpp"
#include "tests/catch.hpp"

using namespace sublet;
using namespace sublet::manager;
using namespace std::chrono_literals;
using slurm::judge;
using slurm::Picture;
using slurm::WallTime;

namespace {

constexpr WallTime read_at{1'000'000s};
constexpr lease::Time now{5h};  // The site's clock is another one.

Picture one(std::set<std::string> states, std::uint32_t allocated = 0) {
  Picture picture{.read = read_at, .nodes = {}};
  picture.nodes["n1"].is = {
      .name = "n1", .states = std::move(states), .cpus = 4, .cpus_allocated = allocated};
  return picture;
}
slurm::PictureNode& n1(Picture& picture) {
  return picture.nodes.at("n1");
}
const std::vector<slurm::Lent> whole{{"n1", 4}};

}  // namespace

TEST_CASE("an idle node, and one that Slurm does not know, are free", "[slurm]") {
  CHECK(judge(one({"IDLE"}), {}, whole, now).orders.empty());
  CHECK(judge(one({"IDLE", "PLANNED"}), {}, whole, now).orders.empty());
  CHECK(judge(one({"IDLE", "DRAIN"}), {}, {{"cloud1", 4}}, now).orders.empty());
}

TEST_CASE("drained, maintained, reserved and broken nodes are cordoned", "[slurm]") {
  for (const char* state :
       {"DRAIN", "MAINTENANCE", "RESERVED", "DOWN", "FAIL", "POWERING_DOWN", "REBOOT_REQUESTED"}) {
    INFO(state);
    const auto orders = judge(one({"IDLE", state}), {}, whole, now).orders;
    REQUIRE(orders.contains("n1"));
    CHECK(orders.at("n1").cordon);
    CHECK(!orders.at("n1").end);
  }
  Picture picture = one({"IDLE", "DRAIN"});
  n1(picture).is.reason = "fan";
  CHECK(judge(picture, {}, whole, now).orders.at("n1").why == "Slurm drains it: fan");
}

TEST_CASE("a planned node ends at the job's start, by the site's clock", "[slurm]") {
  Picture picture = one({"IDLE", "PLANNED"});
  n1(picture).wanted = read_at + 90s;
  n1(picture).wanted_by = 7;
  const auto orders = judge(picture, {}, whole, now).orders;
  CHECK(orders.at("n1").end == now + 90s);
  CHECK(!orders.at("n1").cordon);
  CHECK(orders.at("n1").why == "Slurm plans job 7 there");
}

TEST_CASE("a start that is a little late ends the node now, and one long past is no plan", "[slurm]") {
  Picture picture = one({"IDLE"});
  n1(picture).wanted = read_at - 3s;
  CHECK(judge(picture, {}, whole, now).orders.at("n1").end == now);
  n1(picture).wanted = read_at - limits::slurm_plan_late_max - 1s;
  CHECK(judge(picture, {}, whole, now).orders.empty());
  n1(picture).wanted = WallTime(std::chrono::seconds(1LL << 60));
  CHECK(judge(picture, {}, whole, now).orders.empty());
}

TEST_CASE("what a job has had over two pictures is taken back", "[slurm]") {
  Picture picture = one({"MIXED"}, 2);
  n1(picture).jobs = {7};
  const auto first = judge(picture, {}, whole, now);
  CHECK(first.orders.empty());  // Its prolog may be at it.
  const auto second = judge(picture, first.suspects, whole, now);
  REQUIRE(second.orders.contains("n1"));
  CHECK(second.orders.at("n1").cordon);
  CHECK(second.orders.at("n1").end < now);
  CHECK(second.orders.at("n1").why.find("job 7") != std::string::npos);
  // And it stays so until the cores are handed back or the job is gone.
  CHECK(judge(picture, second.suspects, whole, now).orders.contains("n1"));
  CHECK(judge(picture, second.suspects, {{"n1", 2}}, now).orders.empty());
  n1(picture).jobs = {8};
  CHECK(judge(picture, second.suspects, whole, now).orders.empty());
}

TEST_CASE("a node in its epilog is not suspected", "[slurm]") {
  Picture picture = one({"ALLOCATED", "COMPLETING"}, 4);
  n1(picture).jobs = {7};
  CHECK(judge(picture, {}, whole, now).suspects.empty());
}

TEST_CASE("a node that lends more than Slurm counts is suspected only with a job", "[slurm]") {
  CHECK(judge(one({"IDLE"}), {}, {{"n1", 64}}, now).suspects.empty());
}

TEST_CASE("a pilot lends what its own job holds, as long as that runs", "[slurm]") {
  Picture picture = one({"ALLOCATED"}, 4);
  n1(picture).pilots = {9};
  n1(picture).pilot_cpus = 4;
  const std::vector<slurm::Lent> pilot{{"n1:9", 4}};
  CHECK(judge(picture, {}, pilot, now).suspects.empty());
  CHECK(judge(one({"IDLE", "RESERVED"}), {}, pilot, now).orders.empty());
  n1(picture).pilots.clear();
  const auto gone = judge(picture, {}, pilot, now);
  CHECK(gone.orders.empty());
  CHECK(judge(picture, gone.suspects, pilot, now).orders.at("n1:9").why == "its pilot job 9 is over");
  picture.nodes.at("n1").is.states.insert("DRAIN");
  CHECK(judge(picture, {}, pilot, now).orders.at("n1:9").cordon);
}

TEST_CASE("a pilot's cores are not a job's", "[slurm]") {
  Picture picture = one({"MIXED"}, 2);
  n1(picture).jobs = {7};
  n1(picture).pilots = {9};
  n1(picture).pilot_cpus = 1;
  CHECK(judge(picture, {}, {{"n1", 3}}, now).suspects.empty());
  CHECK(judge(picture, {}, {{"n1", 4}}, now).suspects.contains("n1"));
}
