// Which cores of a node are lent, and in which order they are counted.
#include <sched.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "executor/agent/core_allocator.hpp"
#include "executor/agent/core_list.hpp"
#include "tests/catch.hpp"

using namespace sublet;
using agent::CoreAllocator;
using agent::parse_core_list;
using Cores = std::vector<int>;

TEST_CASE("cores are lent once") {
  CoreAllocator cores(3);
  REQUIRE_FALSE(cores.take(0).has_value());
  const auto first = cores.take(2).value();
  REQUIRE(first == Cores{0, 1});
  REQUIRE_FALSE(cores.take(2).has_value());
  REQUIRE(cores.take(1).value() == Cores{2});
  cores.give_back(first);
  REQUIRE(cores.free_count() == 2);
}

TEST_CASE("a core that is not lent any more is free for nobody, held or not") {
  CoreAllocator cores(4);
  const auto held = cores.take(2).value();
  cores.lend({1, 3});
  REQUIRE(cores.lent() == Cores{1, 3});
  REQUIRE(cores.lends(1));
  REQUIRE_FALSE(cores.lends(0));
  REQUIRE(cores.free_count() == 1);
  cores.give_back(held);
  REQUIRE(cores.take(2).value() == Cores{1, 3});
  cores.lend({0, 1, 2, 3});
  REQUIRE(cores.take(3) == std::nullopt);
  REQUIRE(cores.take(2).value() == Cores{0, 2});
}

TEST_CASE("lists of cores are read and printed") {
  REQUIRE(parse_core_list("0-3,8").value() == Cores{0, 1, 2, 3, 8});
  REQUIRE(parse_core_list("5,1").value() == Cores{5, 1});
  REQUIRE(parse_core_list("4095").value() == Cores{4095});
  for (const char* text : {"", ",", "1,", "-1", "3-1", "1-", "x", "1 2", "4096", "0-4095,0", "99999999999"}) {
    INFO(text);
    REQUIRE(parse_core_list(text).error().code() == Errc::invalid_argument);
  }
  REQUIRE(agent::print_core_list({0, 1, 2, 5, 7, 8}) == "0-2,5,7-8");
  REQUIRE(agent::print_core_list({}).empty());
}

TEST_CASE("cores are counted by socket, core and thread") {
  cpu_set_t before;
  REQUIRE(::sched_getaffinity(0, sizeof(before), &before) == 0);
  Cores have;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &before)) have.push_back(core);
  }
  std::string folder = std::filesystem::temp_directory_path() / "sublet-cores-XXXXXX";
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  const auto describe = [&](int core, const std::string& package, const std::string& siblings) {
    const std::string topology = folder + "/cpu" + std::to_string(core) + "/topology/";
    std::filesystem::create_directories(topology);
    std::ofstream(topology + "package_cpus_list") << package << "\n";
    std::ofstream(topology + "core_cpus_list") << siblings << "\n";
  };
  REQUIRE(agent::own_cores(folder) == have);  // Nothing is described.
  // The first belongs to the second socket.
  for (const int core : have)
    describe(core, core == have.front() ? "4000,4001" : "0,2", std::to_string(core));
  Cores turned(have.begin() + 1, have.end());
  turned.push_back(have.front());
  REQUIRE(agent::own_cores(folder) == turned);
  // The last is the first one's sibling.
  for (const int core : have) describe(core, "0-4000", std::to_string(core));
  describe(have.back(), "0-4000", std::to_string(have.front()) + "," + std::to_string(have.back()));
  Cores paired{have.front()};
  if (have.size() > 1) paired.push_back(have.back());
  for (std::size_t i = 1; i + 1 < have.size(); ++i) paired.push_back(have[i]);
  REQUIRE(agent::own_cores(folder) == paired);
  std::filesystem::remove_all(folder);
}
