// What the client tells when workers, nodes, leases or the manager end.
#include <csignal>

#include "client/manager_client.hpp"
#include "runtime/base/limits.hpp"
#include "tests/catch.hpp"
#include "tests/integration/client_probe.hpp"
#include "tests/transports.hpp"

using namespace sublet;
using namespace sublet::test;

TEST_CASE("a killed worker is told as lost within the bound and replaced under the same lease") {
  Probe probe;
  const std::string transport = GENERATE(from_range(transports()));
  const bool idempotent = GENERATE(false, true);
  Lease lease = probe.lease({.transports = {.require = {transport}}});
  const Buffer input = number(lease, 300);
  Buffer output = lease.allocate(64).value();
  Future future = lease.submit(input, output, {.entry = spin, .idempotent = idempotent}).value();
  REQUIRE_FALSE(probe.workers_of(probe.agent(0)).empty());
  const TimePoint killed = SteadyClock::now();
  for (const pid_t worker : probe.workers_of(probe.agent(0))) ::kill(worker, SIGKILL);
  const auto result = future.wait();
  if (idempotent) {
    CHECK(result.ok());
    CHECK(lease.counters().rerun == 1);
  } else {
    CHECK(error_of(result).code() == Errc::worker_lost);
    CHECK(SteadyClock::now() - killed < limits::peer_lost_max + 2s);
  }
  Buffer fresh = lease.allocate(64).value();
  CHECK(lease.invoke(input, 4, fresh, {.entry = echo}).value() == 4);
  CHECK(lease.workers()[0].transport == transport);
  CHECK(lease.counters().replaced >= 1);
}

TEST_CASE("a stopped worker is lost by its silence") {
  Probe probe;
  const std::string transport = GENERATE(from_range(transports()));
  Lease lease = probe.lease({.transports = {.require = {transport}}});
  const Buffer input = number(lease, 10'000);
  Buffer output = lease.allocate(64).value();
  Future future = lease.submit(input, output, {.entry = spin}).value();
  const std::vector<pid_t> workers = probe.workers_of(probe.agent(0));
  for (const pid_t worker : workers) ::kill(worker, SIGSTOP);
  const TimePoint stopped = SteadyClock::now();
  CHECK(error_of(future.wait()).code() == Errc::worker_lost);
  CHECK(SteadyClock::now() - stopped < limits::peer_lost_max + 3s);
  for (const pid_t worker : workers) ::kill(worker, SIGKILL);
}

TEST_CASE("a lease is renewed while it is used and expires when it is not") {
  const Probe probe;
  SECTION("renewed") {
    Lease lease = probe.lease({.ttl = 600ms});
    const Buffer input = buffer_with(lease, "x");
    Buffer output = lease.allocate(64).value();
    const TimePoint start = SteadyClock::now();
    while (SteadyClock::now() - start < 3s) REQUIRE(lease.invoke(input, 1, output).ok());
    CHECK(lease.counters().replaced == 0);
  }
  SECTION("not renewed") {
    Lease lease = probe.lease({.ttl = 1500ms, .renew = false});
    const Buffer input = number(lease, 10'000);
    Buffer output = lease.allocate(64).value();
    Future future = lease.submit(input, output, {.entry = spin}).value();
    CHECK(error_of(future.wait()).code() == Errc::lease_expired);
    CHECK(error_of(lease.submit(input, output)).code() == Errc::lease_expired);
  }
}

TEST_CASE("a revoked lease ends with that status") {
  Probe probe;
  Lease lease = probe.lease({.ttl = 2s});
  const Buffer input = number(lease, 10'000);
  Buffer output = lease.allocate(64).value();
  Future future = lease.submit(input, output, {.entry = spin, .idempotent = true}).value();
  const auto http = control::HttpClient::create(probe.url()).value();
  control::body_of(http->request("POST", "/v1/leases/" + std::to_string(lease.id()) + "/revoke", "", 5s))
      .value();
  CHECK(error_of(future.wait()).code() == Errc::lease_revoked);
  CHECK(error_of(lease.submit(input, output)).code() == Errc::lease_revoked);
}

TEST_CASE("calls go on while the manager is away") {
  Probe probe;
  Lease lease = probe.lease({.ttl = 60s});
  const Buffer input = buffer_with(lease, "x");
  Buffer output = lease.allocate(64).value();
  probe.manager().signal(SIGKILL);
  probe.manager().wait();
  for (int i = 0; i < 100; ++i) REQUIRE(lease.invoke(input, 1, output).ok());
  CHECK_FALSE(lease.release().ok());
}

TEST_CASE("a node that drains hands its calls to another, and none is lost") {
  Probe probe(2);
  const std::string transport = GENERATE(from_range(transports()));
  Lease lease = probe.lease({.workers = 2, .transports = {.require = {transport}}});
  probe.start_agent("n2", 2);
  const Buffer input = number(lease, 5);
  std::vector<Buffer> outputs;
  std::vector<Future> futures(16);
  for (std::size_t lane = 0; lane < futures.size(); ++lane) outputs.push_back(lease.allocate(64).value());
  std::size_t succeeded = 0;
  for (std::size_t call = 0; call < 400; ++call) {
    const std::size_t lane = call % futures.size();
    if (call == 100) probe.agent(0).signal(SIGTERM);
    if (call >= futures.size()) {
      const auto result = futures[lane].wait();
      INFO("call " << call << ": " << (result.ok() ? "ok" : result.error().message()));
      REQUIRE(result.ok());
      ++succeeded;
    }
    auto future = lease.submit(input, outputs[lane], {.entry = spin});
    REQUIRE(future.ok());
    futures[lane] = std::move(*future);
  }
  for (Future& future : futures) {
    REQUIRE(future.wait().ok());
    ++succeeded;
  }
  CHECK(succeeded == 400);
  for (const WorkerStatus& worker : lease.workers()) CHECK(worker.node == "n2");
  CHECK(probe.agent(0).wait() == 0);
}
