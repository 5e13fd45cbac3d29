// What Slurm 22.05 printed, read; and what nobody should print.

#include "runtime/manager/slurm_picture.hpp"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "runtime/base/limits.hpp"
#include "tests/catch.hpp"

using namespace sublet;
using namespace sublet::manager;
using slurm::WallTime;

namespace {

constexpr WallTime read_at{std::chrono::seconds(1'795'375'204)};

std::string printed(const char* name) {
  std::ifstream file(std::filesystem::path(SUBLET_SLURM_PRINTED) / name);
  std::stringstream text;
  text << file.rdbuf();
  REQUIRE(!text.str().empty());
  return text.str();
}

Result<slurm::Picture> jobs(const std::string& squeue) {
  return slurm::parse_picture(
      R"({"nodes":[{"name":"n1","state":"idle","cpus":4,"alloc_cpus":0},{"name":"n2","state":"idle","cpus":4,"alloc_cpus":0}]})",
      squeue, read_at);
}

std::string why(const Result<slurm::Picture>& picture) {
  REQUIRE(!picture.ok());
  REQUIRE(picture.error().code() == Errc::invalid_argument);
  return picture.error().detail();
}

}  // namespace

TEST_CASE("what a real Slurm printed is read", "[slurm]") {
  const auto picture = slurm::parse_picture(printed("sinfo.json"), printed("squeue.txt"), read_at);
  REQUIRE(picture.ok());
  REQUIRE(picture->nodes.size() == 4);
  const auto& half = picture->nodes.at("n1");
  CHECK(half.is.states.contains("MIXED"));
  CHECK(half.is.cpus == 4);
  CHECK(half.is.cpus_allocated == 2);
  CHECK(half.jobs == std::set<slurm::Job>{5});
  CHECK(half.pilots.empty());
  CHECK(half.wanted == WallTime(std::chrono::seconds(1'795'375'319)));
  CHECK(half.wanted_by == 8);
  CHECK(picture->nodes.at("n2").jobs == std::set<slurm::Job>{6});
  CHECK(picture->nodes.at("n3").is.states.contains("MAINTENANCE"));
  CHECK(picture->nodes.at("n4").is.states.contains("DRAIN"));
  CHECK(picture->nodes.at("n4").is.reason == "test; \"quote");
}

TEST_CASE("states and numbers of later versions are read", "[slurm]") {
  const auto picture = slurm::parse_picture(
      R"({"nodes":[{"name":"a","state":["IDLE","DRAIN","PLANNED"],"cpus":{"set":true,"number":64},"alloc_cpus":0,"x":[{}]}]})",
      "", read_at);
  REQUIRE(picture.ok());
  CHECK(picture->nodes.at("a").is.states == std::set<std::string>{"DRAIN", "IDLE", "PLANNED"});
  CHECK(picture->nodes.at("a").is.cpus == 64);
}

TEST_CASE("the first plan of a node counts, and pilots plan nothing", "[slurm]") {
  const auto picture = jobs(
      "1|PD|2000|4|n[1-2]||late\n2|PD|1000|4|n2||a|b|c\n3|PD|500|4|n1||sublet-pilot\n4|PD|N/"
      "A|4|(null)||none\n"
      "9|R|100|2|(null)|n[1-2]|runs\n8|R|100|3|(null)|n1|sublet-pilot\n");
  REQUIRE(picture.ok());
  CHECK(picture->nodes.at("n1").wanted_by == 1);
  CHECK(picture->nodes.at("n2").wanted_by == 2);
  CHECK(picture->nodes.at("n1").jobs == std::set<slurm::Job>{9});
  CHECK(picture->nodes.at("n1").pilots == std::set<slurm::Job>{8});
  CHECK(picture->nodes.at("n1").pilot_cpus == 3);
}

TEST_CASE("lists of nodes are written out", "[slurm]") {
  using Names = std::vector<std::string>;
  CHECK(slurm::expand_hosts("n1", 10).value() == Names{"n1"});
  CHECK(slurm::expand_hosts("n[1-3,07],gpu-a", 10).value() == Names{"n1", "n2", "n3", "n07", "gpu-a"});
  CHECK(slurm::expand_hosts("n[08-11]x", 10).value() == Names{"n08x", "n09x", "n10x", "n11x"});
  CHECK(slurm::expand_hosts("r[1-2]n[3,5]", 10).value() == Names{"r1n3", "r1n5", "r2n3", "r2n5"});
  for (const char* bad :
       {"", ",", "n[", "n[1", "n[]", "n[-]", "n[3-1]", "n[1-4000000000]", "n[1-99999999999]", "n[a-b]",
        "n[1-11]", "a[1-4]b[1-4]", "n]1,", "a[1]b[1]c[1]d[1]e[1]", "n[1,,2]"}) {
    INFO(bad);
    CHECK(!slurm::expand_hosts(bad, 10).ok());
  }
  CHECK(!slurm::expand_hosts(std::string(100'000, '['), 10).ok());
}

TEST_CASE("what sinfo must not print is refused with its place", "[slurm]") {
  const auto of = [](const std::string& sinfo) { return why(slurm::parse_picture(sinfo, "", read_at)); };
  CHECK(of("slurm_load_node error") != "");
  CHECK(of("[]").find("list of nodes") != std::string::npos);
  CHECK(of(R"({"nodes":{}})").find("list of nodes") != std::string::npos);
  CHECK(of(R"({"nodes":[7]})").find("nodes[0]") != std::string::npos);
  CHECK(of(R"({"nodes":[{"name":"","state":"idle","cpus":1,"alloc_cpus":0}]})").find(".name") !=
        std::string::npos);
  CHECK(of(R"({"nodes":[{"name":"a","state":[["idle"]],"cpus":1,"alloc_cpus":0}]})").find(".state") !=
        std::string::npos);
  CHECK(of(R"({"nodes":[{"name":"a","state":"idle","cpus":-1,"alloc_cpus":0}]})").find(".cpus") !=
        std::string::npos);
  CHECK(of(R"({"nodes":[{"name":"a","state":"idle","cpus":1e99,"alloc_cpus":0}]})").find(".cpus") !=
        std::string::npos);
  CHECK(of(R"({"nodes":)" + std::string(100'000, '[')) != "");
}

TEST_CASE("what squeue must not print is refused", "[slurm]") {
  CHECK(why(jobs("slurm_load_jobs error: x\n")).find("not the format") != std::string::npos);
  CHECK(why(jobs("x|R|1|1|(null)|n1|name\n")).find("without number") != std::string::npos);
  CHECK(why(jobs("7|R|1|1|(null)|n[1|name\n")).find("job 7") != std::string::npos);
  std::string many;
  const std::string line = "7|R|1|1|(null)|n[0-65000]|name\n";
  for (std::size_t i = 0; i <= limits::slurm_mentions_max / 65'001; ++i) many += line;
  CHECK(why(jobs(many)).find("too many") != std::string::npos);
}
