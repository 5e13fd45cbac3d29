// The manager's promises while its disk is slow, full or failing, and what peers in a hurry do to its order.

#include "tests/unit/manager/service_fixture.hpp"

using namespace sublet;
using namespace sublet::test;
using namespace std::chrono_literals;
using Trouble = Disk::Trouble;

namespace {

FileDescriptor send(const Manager& manager, const std::string& request) {
  FileDescriptor peer = manager.connect();
  send_all(peer, request);
  return peer;
}

std::string commands_of(std::uint64_t node) {
  return Manager::request("GET", "/v1/nodes/" + std::to_string(node) + "/commands?after=0");
}

std::string status_of(const FileDescriptor& peer) {
  return receive(peer, "\r\n").substr(0, 12);
}

api::WorkerInfo worker(std::uint32_t id, std::uint32_t function = 0) {
  return {id, {{"tcp", "127.0.0.1:1"}}, function};
}

/// Until the manager says that it is ready, while time passes.
void wait_ready(Manager& manager) {
  const TimePoint until = SteadyClock::now() + patience;
  while (manager.ask("GET", "/readyz").status != 200) {
    REQUIRE(SteadyClock::now() < until);
    manager.pass(500ms);
  }
}

}  // namespace

TEST_CASE("no node hears of a function that a killed manager would not know") {
  const State state;
  const Trouble trouble = GENERATE(Trouble::stuck_writes, Trouble::stuck_syncs);
  {
    Manager manager(state.path);
    const auto node = manager.add_node();
    const FileDescriptor poll = send(manager, commands_of(node));
    manager.settle();
    Disk disk;
    disk.meets(trouble);
    const FileDescriptor deploying = send(manager, Manager::deploying("f", "library"));
    REQUIRE(disk.wait_stuck(patience));
    manager.settle();
    REQUIRE(is_silent(deploying));
    REQUIRE(is_silent(poll));
    state.kill();
    disk.meets(Trouble::none);
    REQUIRE(status_of(deploying) == "HTTP/1.1 201");
    REQUIRE_THAT(receive(poll, "}]}"), Catch::Contains(R"("kind":"fetch_function","lease":0,"function":1)"));
  }
  Manager successor(state.killed);
  const auto functions = successor.get<api::Functions>("/v1/functions").functions;
  if (trouble == Trouble::stuck_writes) {
    REQUIRE(functions.empty());
    REQUIRE(State::files(state.killed) == 0);
  } else {
    REQUIRE(functions.at(0).id == 1);
    REQUIRE(successor.ask("GET", "/v1/functions/by-id/1").body == "library");
  }
}

TEST_CASE("a removed function is whole until its removal is written") {
  const State state;
  {
    Manager manager(state.path);
    const auto node = manager.add_node();
    REQUIRE(manager.deploy("f", "library").status == 201);
    Disk disk;
    disk.meets(Trouble::stuck_writes);
    const FileDescriptor removing = send(manager, Manager::request("DELETE", "/v1/functions/f/1"));
    REQUIRE(disk.wait_stuck(patience));
    state.kill();
    REQUIRE_THAT(receive(send(manager, commands_of(node)), "}]}"), !Catch::Contains("drop_function"));
    disk.meets(Trouble::none);
    REQUIRE(status_of(removing) == "HTTP/1.1 204");
    REQUIRE(State::files(state.path) == 0);
    REQUIRE_THAT(receive(send(manager, commands_of(node)), "}]}"), Catch::Contains("drop_function"));
  }
  Manager successor(state.killed);
  REQUIRE(successor.ask("GET", "/v1/functions/by-id/1").body == "library");
}

TEST_CASE("a node that has missed a removal drops the function when it says that a worker has it") {
  const State state;
  std::uint64_t node = 0;
  {
    Manager manager(state.path);
    node = manager.add_node();
    REQUIRE(manager.deploy("f", "library").status == 201);
    REQUIRE(manager.deploy("g", "other").status == 201);
    REQUIRE(manager.ask("DELETE", "/v1/functions/f/1").status == 204);
  }
  Manager successor(state.path);
  REQUIRE(successor.hear(node, {.ready = {worker(1, 1), worker(2, 1), worker(3, 2), worker(4)}}) == 200);
  const std::string commands = receive(send(successor, commands_of(node)), "}]}");
  REQUIRE_THAT(commands, Catch::Contains(R"("commands":[{"sequence":)") &&
                             Catch::Contains(R"("kind":"drop_function","lease":0,"function":1)"));
  REQUIRE(commands.find("sequence") == commands.rfind("sequence"));
}

TEST_CASE("a deployment that cannot be written leaves nothing") {
  const State state;
  Manager manager(state.path);
  const auto node = manager.add_node();
  {
    Disk disk;
    disk.meets(Trouble::full);
    const control::HttpAnswer refused = manager.deploy("f", "library");
    REQUIRE(refused.status == 503);
    REQUIRE_THAT(refused.body, Catch::Contains("cannot write its state"));
    REQUIRE(State::files(state.path) == 0);
    REQUIRE(manager.ask("GET", "/readyz").status == 503);
  }
  wait_ready(manager);
  REQUIRE(manager.get<api::Functions>("/v1/functions").functions.empty());
  REQUIRE(manager.deploy("f", "another").status == 201);
  REQUIRE_THAT(receive(send(manager, commands_of(node)), "}]}"),
               Catch::Contains(R"("function":2)") && !Catch::Contains(R"("function":1)"));
  state.kill();
  Manager successor(state.killed);
  const auto functions = successor.get<api::Functions>("/v1/functions").functions;
  REQUIRE((functions.size() == 1 && functions[0].id == 2));
}

TEST_CASE("a function that is removed before it is written leaves no file, row, order or number") {
  const State state;
  const bool written = GENERATE(true, false);
  Manager manager(state.path);
  const auto node = manager.add_node();
  {
    Disk disk;
    disk.meets(Trouble::stuck_writes);
    const FileDescriptor deploying = send(manager, Manager::deploying("f", "library"));
    REQUIRE(disk.wait_stuck(patience));
    const FileDescriptor removing = send(manager, Manager::request("DELETE", "/v1/functions/f/1"));
    manager.settle();
    REQUIRE(manager.get<api::Functions>("/v1/functions").functions.empty());
    disk.meets(written ? Trouble::none : Trouble::full);
    REQUIRE(status_of(deploying) == (written ? "HTTP/1.1 201" : "HTTP/1.1 503"));
    REQUIRE(status_of(removing) == (written ? "HTTP/1.1 204" : "HTTP/1.1 503"));
    REQUIRE(State::files(state.path) == 0);
  }
  wait_ready(manager);
  REQUIRE_THAT(receive(send(manager, commands_of(node)), "}]}"),
               Catch::Contains("drop_function") && !Catch::Contains("fetch_function"));
  state.kill();
  Manager successor(state.killed);
  REQUIRE(successor.get<api::Functions>("/v1/functions").functions.empty());
  REQUIRE_THAT(successor.deploy("g", "other").body, Catch::StartsWith(R"({"id":2,)"));
}

TEST_CASE("a deployment whose client has gone is finished, and whole when it is asked for again") {
  const State state;
  Manager manager(state.path);
  {
    Disk disk;
    disk.meets(Trouble::stuck_writes);
    const FileDescriptor deploying = send(manager, Manager::deploying("f", "library"));
    REQUIRE(disk.wait_stuck(patience));
  }
  REQUIRE(manager.deploy("f", "library").status == 200);
  REQUIRE(manager.ask("GET", "/v1/functions/by-id/1").body == "library");
}

TEST_CASE("no node is lost while the manager's own disk is stuck") {
  const State state;
  const Trouble trouble = GENERATE(Trouble::stuck_writes, Trouble::stuck_syncs);
  Manager manager(state.path);
  const std::string path = "/v1/nodes/" + std::to_string(manager.add_node());
  manager.pass(0ms);
  // As nodes whose heartbeats wait for the disk: shorter than what counts as the manager's own absence.
  const auto silence = [&] {
    for (TimePoint::duration time{}; time < 2 * limits::node_silent_max; time += 900ms) manager.pass(900ms);
  };
  Disk disk;
  disk.meets(trouble);
  const FileDescriptor deploying = send(manager, Manager::deploying("f", "library"));
  REQUIRE(disk.wait_stuck(patience));
  manager.settle();
  silence();
  REQUIRE(manager.get<api::NodeInfo>(path).state == "up");
  disk.meets(Trouble::none);
  REQUIRE(status_of(deploying) == "HTTP/1.1 201");
  REQUIRE(manager.get<api::NodeInfo>(path).state == "up");
  silence();
  REQUIRE(manager.get<api::NodeInfo>(path).state == "lost");
}

TEST_CASE("after a sync that failed nothing is promised until the manager is started again") {
  const State state;
  {
    Manager manager(state.path);
    manager.pass(0ms);
    REQUIRE(manager.deploy("f", "library").status == 201);
    Disk disk;
    disk.meets(Trouble::failed_syncs);
    REQUIRE(manager.deploy("g", "library").status == 503);
    disk.meets(Trouble::none);
    // The next sync would succeed and say nothing of what the first one has lost.
    for (int i = 0; i < 4; ++i) manager.pass(900ms);
    REQUIRE(manager.deploy("h", "library").status == 503);
    const control::HttpAnswer ready = manager.ask("GET", "/readyz");
    REQUIRE(ready.status == 503);
    REQUIRE_THAT(ready.body, Catch::Contains("start the manager again"));
    REQUIRE_THAT(manager.ask("GET", "/metrics").body, Catch::Contains("sublet_state_writable 0"));
    REQUIRE(manager.ask("GET", "/healthz").status == 200);
    state.kill();
  }
  Manager successor(state.killed);
  REQUIRE(successor.ask("GET", "/readyz").status == 200);
  REQUIRE(successor.ask("GET", "/v1/functions/f/1").status == 200);
  REQUIRE(successor.deploy("h", "library").status == 201);
}

TEST_CASE("numbers that no node can mean are refused by name, and those of others are not believed") {
  const State state;
  Manager manager(state.path);
  const auto node = manager.add_node("honest");
  const auto other = manager.add_node("other");
  REQUIRE(manager.deploy("f", "library").status == 201);
  REQUIRE(manager.hear(node, {.ready = {worker(1)}}) == 200);
  const auto grant =
      api::from_json<api::LeaseGrant>(manager.ask("POST", "/v1/leases", R"({"function":"f"})").body);
  const std::string path = "/v1/nodes/" + std::to_string(other) + "/heartbeat";
  const auto usage = [](const std::string& id, const std::string& lease, const std::string& calls,
                        const std::string& time) {
    return R"({"usage":[{"id":)" + id + R"(,"lease":)" + lease + R"(,"calls_started":)" + calls +
           R"(,"calls":)" + calls + R"(,"execution_ns":)" + time + R"(,"hot_ns":)" + time + "}]}";
  };
  const auto ready = [](const std::string& id, const std::string& function) {
    return R"({"ready":[{"id":)" + id + R"(,"endpoints":{"tcp":"127.0.0.1:1"},"function":)" + function +
           "}]}";
  };
  std::vector<std::string> bodies;
  for (const char* number : {"0", "9007199254740992", "18446744073709551615", "18446744073709551616", "-1",
                             "1.5", "1e3", "null", "\"1\"", "[1]"}) {
    bodies.push_back(usage(number, "1", "1", "1"));
    bodies.push_back(usage("1", number, "1", "1"));
    bodies.push_back(R"({"serving":[{"worker":1,"lease":)" + std::string(number) + "}]}");
    if (number == std::string("0")) continue;
    bodies.push_back(usage("1", "1", number, "1"));
    bodies.push_back(R"({"ended":[{"worker":1,"reason":"crashed","lease":)" + std::string(number) + "}]}");
    bodies.push_back(ready(number, "0"));
    bodies.push_back(ready("1", number));
  }
  for (const char* number : {"9223372036854775808", "18446744073709551616", "-1"})
    bodies.push_back(usage("1", "1", "1", number));
  for (const std::string& body : bodies) {
    INFO(body);
    const control::HttpAnswer answer = manager.ask("POST", path, body);
    CHECK(answer.status == 400);
    CHECK(api::from_json<api::ErrorBody>(answer.body)->error == "invalid_argument");
  }
  api::Heartbeat claim{.usage = {{5, grant->lease, 9, 9, 9, 9}}};
  REQUIRE(manager.hear(other, claim) == 200);
  REQUIRE(manager.get<api::Usage>("/v1/usage?by=worker").rows.empty());
  REQUIRE(manager.hear(node, claim) == 200);
  REQUIRE(manager.get<api::Usage>("/v1/usage?by=worker").rows.at(0).calls == 9);
}

TEST_CASE("a request that an answer lets in finds the queue of those that wait in order") {
  const State state;
  Manager manager(state.path);
  const auto node = manager.add_node();
  REQUIRE(manager.deploy("f", "library").status == 201);
  REQUIRE(manager.deploy("g", "library").status == 201);
  const auto heartbeat = [&](const std::vector<std::uint32_t>& ready) {
    api::Heartbeat said;
    for (const std::uint32_t id : ready) said.ready.push_back(worker(id));
    return Manager::request("POST", "/v1/nodes/" + std::to_string(node) + "/heartbeat", api::to_json(said));
  };
  const auto wait_for = [](const std::string& function, const std::string& tenant) {
    return Manager::request(
        "POST", "/v1/leases",
        R"({"function":")" + function + R"(","tenant":")" + tenant + R"(","wait_ms":60000})");
  };
  // The first to wait is refused when there is room: its function has gone. What its peer has sent behind
  // it brings more room, in the midst of serving those that wait.
  const FileDescriptor first = send(manager, wait_for("f", "a") + heartbeat({1, 2}));
  manager.settle();
  const FileDescriptor second = send(manager, wait_for("g", "b"));
  manager.settle();
  const FileDescriptor third = send(manager, wait_for("g", "c"));
  manager.settle();
  REQUIRE(manager.ask("DELETE", "/v1/functions/f/1").status == 204);
  const FileDescriptor trigger = send(manager, heartbeat({1}));
  REQUIRE(status_of(trigger) == "HTTP/1.1 200");
  REQUIRE_THAT(receive(first, "time_ms"),
               Catch::StartsWith("HTTP/1.1 404") && Catch::Contains("HTTP/1.1 200"));
  REQUIRE(status_of(second) == "HTTP/1.1 201");
  REQUIRE(status_of(third) == "HTTP/1.1 201");
  REQUIRE(manager.get<api::Leases>("/v1/leases?state=active").leases.size() == 2);
}
