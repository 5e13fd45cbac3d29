// The manager when Slurm speaks, is silent, and when nodes come in between.

#include "runtime/base/limits.hpp"
#include "tests/unit/manager/service_fixture.hpp"

using namespace sublet;
using namespace std::chrono_literals;

namespace {

manager::slurm::Picture drained(const std::string& name) {
  manager::slurm::Picture picture{.read = manager::slurm::WallTime(1000s), .nodes = {}};
  picture.nodes[name].is = {.name = name, .states = {"IDLE", "DRAIN"}, .cpus = 8};
  return picture;
}

std::string metric(test::Manager& manager, const std::string& name) {
  const std::string text = manager.ask("GET", "/metrics").body;
  const std::size_t at = text.find("\n" + name + " ");
  if (at == std::string::npos) return "";
  return text.substr(at + name.size() + 2, text.find('\n', at + 1) - at - name.size() - 2);
}

}  // namespace

TEST_CASE("Slurm's order shows, also on a node that registers after it", "[service][slurm]") {
  const test::State state;
  test::Manager manager(state.path);
  CHECK(metric(manager, "sublet_slurm_age_seconds").empty());
  manager.see_slurm(drained("n"));
  const auto node = manager.add_node();
  auto info = manager.get<api::NodeInfo>("/v1/nodes/" + std::to_string(node));
  CHECK(info.state == "cordoned");
  CHECK(info.why == "Slurm drains it");
  CHECK(metric(manager, "sublet_nodes_ordered{order=\"cordon\"}") == "1");
  CHECK(metric(manager, "sublet_slurm_looks_total{result=\"seen\"}") == "1");
  CHECK(metric(manager, "sublet_slurm_age_seconds") == "0");
  manager.see_slurm(manager::slurm::Picture{});
  info = manager.get<api::NodeInfo>("/v1/nodes/" + std::to_string(node));
  CHECK(info.state == "up");
}

TEST_CASE("what Slurm last said holds for a bounded time when it is silent", "[service][slurm]") {
  const test::State state;
  test::Manager manager(state.path);
  const auto node = manager.add_node();
  const auto state_now = [&] {
    manager.hear(node, {});
    return manager.get<api::NodeInfo>("/v1/nodes/" + std::to_string(node)).state;
  };
  manager.see_slurm(drained("n"));
  manager.see_slurm(Error(Errc::unavailable, "sinfo: no"));
  manager.see_slurm(Error(Errc::unavailable, "sinfo: no"));
  CHECK(metric(manager, "sublet_slurm_looks_total{result=\"failed\"}") == "2");
  CHECK(state_now() == "cordoned");
  std::chrono::seconds passed{0};
  for (; passed < limits::slurm_picture_max; passed += 4s) {
    manager.pass(4s);
    CHECK(state_now() == "cordoned");
  }
  manager.pass(4s);
  CHECK(state_now() == "up");
  CHECK(metric(manager, "sublet_slurm_age_seconds").empty());
}
