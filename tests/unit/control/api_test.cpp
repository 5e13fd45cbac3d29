#include "runtime/control/api.hpp"

#include "tests/catch.hpp"

using namespace sublet;

namespace {

/// Reads what was written and writes it again: the same text means that nothing was lost.
template <typename T>
void survives(const T& body) {
  const std::string text = api::to_json(body);
  const Result<T> read = api::from_json<T>(text);
  REQUIRE(read.ok());
  REQUIRE(api::to_json(*read) == text);
}

template <typename T>
std::string complaint(std::string_view text) {
  const Result<T> read = api::from_json<T>(text);
  REQUIRE_FALSE(read.ok());
  REQUIRE(read.error().code() == Errc::invalid_argument);
  return read.error().detail();
}

}  // namespace

TEST_CASE("every body survives writing and reading") {
  const api::WorkerInfo worker{7, {{"tcp", "[::1]:4711"}, {"shm", "/run/\"w7\" \\ \n.sock"}}, 3};
  const api::GrantedWorker granted{UINT64_MAX,           "n",   "boot", UINT32_MAX, worker.endpoints,
                                   std::string(96, 'a'), "tcp", "why"};
  const api::FunctionInfo function{1, "f", "1", std::string(64, '0'), 12};
  survives(worker);
  survives(api::NodeRegistration{"n", "boot", 4, 1ULL << 40, 64, "0.1.0", 8});
  survives(api::NodeRegistered{1, "key", 1000, 1'700'000'000'000});
  survives(api::WorkerUsage{1, 2, 3, 4, 5, 6});
  survives(api::Heartbeat{
      true, {worker}, {{1, 2, "tcp"}}, {{3, 4, "crashed"}}, true, 5, 6, 7, {{1, 2, 3, 4, 5, 6}}});
  survives(api::HeartbeatAnswer{5, true});
  survives(api::Command{1, "end_worker", 2, 3, "replaced", 4});
  survives(api::Commands{{{1, "drain", 0, 0, "", 0}, {2, "undrain", 0, 0, "", 0}}});
  survives(function);
  survives(api::Functions{{function, function}});
  survives(api::LeaseRequest{"f@1", "t", 2, 3, 4, 5, 6, {{"verbs", "tcp"}, {"verbs"}, {"shm"}}, 7, "pack"});
  survives(granted);
  survives(api::LeaseGrant{1, 2, "f@1", 3, 4, {granted}});
  survives(api::RenewRequest{1});
  survives(api::ReplaceRequest{1, 2, 3});
  survives(api::LeaseInfo{1, "t", "f@1", "ended", "expired", 2, 3, 4, 5, 6, {{"tcp"}, {}, {}}, {granted}});
  survives(api::Leases{{{}, {}}});
  survives(api::NodeInfo{1, "n", "up", 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, "0.1.0"});
  survives(api::Nodes{});
  survives(api::Usage{1, {{2, 3, "t", "f@1", "active", 4, 5, 6, 7, 8, 9, 10, 11, 12}}});
  survives(api::Tenants{{{"t", 1, 2, 3, 4, 5, 6}}});
  survives(api::Health{"ok", "0.1.0", 1, 2});
  survives(api::ErrorBody{"busy", "wait \xE2\x82\xAC", 5});
}

TEST_CASE("a lease request needs only its function") {
  const api::LeaseRequest request = api::from_json<api::LeaseRequest>(R"({"function":"f"})").value();
  REQUIRE(request.tenant == "default");
  REQUIRE(request.workers == 1);
  REQUIRE(request.ttl_ms == 60'000);
  REQUIRE(complaint<api::LeaseRequest>("{}") == "function is missing");
}

TEST_CASE("a wrong member is named") {
  using Api = api::Heartbeat;
  REQUIRE(complaint<api::RenewRequest>(R"({})") == "ttl_ms is missing");
  REQUIRE(complaint<api::RenewRequest>(R"({"ttl_ms":1,"x":2})") == "x is unknown");
  REQUIRE(complaint<api::RenewRequest>(R"([])") == "the body must be an object");
  REQUIRE(
      complaint<Api>(R"({"ready":[],"serving":[{"worker":1,"lease":"2"}],"ended":[],"draining":false})") ==
      "serving[0].lease must be a whole number that is not negative");
  REQUIRE(complaint<Api>(R"({"ready":[{"id":1,"function":0,"endpoints":{"tcp":1}}],"serving":[],"ended":[],)"
                         R"("draining":false})") == "ready[0].endpoints.tcp must be a string");
  REQUIRE(complaint<Api>(R"({"ready":{},"serving":[],"ended":[],"draining":false})") ==
          "ready must be an array");
  REQUIRE(complaint<Api>(R"({"ready":[],"serving":[],"ended":[],"draining":0})") ==
          "draining must be true or false");
  REQUIRE(complaint<api::WorkerInfo>(R"({"id":1,"function":0,"endpoints":[]})") ==
          "endpoints must be an object of strings");
}

TEST_CASE("hostile numbers are refused") {
  for (const char* number :
       {"-1", "1.5", "1e3", "18446744073709551616", "1e999", "null", "\"1\"", "true", "-0.0"}) {
    INFO(number);
    complaint<api::RenewRequest>(std::string(R"({"ttl_ms":)") + number + "}");
  }
  REQUIRE(api::from_json<api::RenewRequest>(R"({"ttl_ms":18446744073709551615})")->ttl_ms == UINT64_MAX);
  REQUIRE(complaint<api::ReplaceRequest>(R"({"node":1,"worker":4294967296})") ==
          "worker must be at most 4294967295");
}

TEST_CASE("depth, garbage and huge text are refused or survived") {
  complaint<api::RenewRequest>(std::string(1'000'000, '['));
  complaint<api::RenewRequest>("");
  complaint<api::RenewRequest>("{");
  complaint<api::RenewRequest>(R"({"ttl_ms":1} x)");
  complaint<api::ErrorBody>("{\"error\":\"\xff\",\"message\":\"\"}");
  complaint<api::RenewRequest>(std::string_view("\0\0\0", 3));
  survives(api::ErrorBody{"busy", std::string(3'000'000, 'x')});
  const std::string name(100'000, 'y');
  REQUIRE(complaint<api::RenewRequest>("{\"ttl_ms\":1,\"" + name + "\":1}").size() < 100);
  REQUIRE(complaint<api::RenewRequest>("{\"ttl_ms\":1,\"a\\u0000\\n\\\"b\":1}") == "a???b is unknown");
}
