// The wall clock of a machine is set while leases are held: no lease ends early, none lives longer.
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "runtime/control/api.hpp"
#include "runtime/control/http_client.hpp"
#include "runtime/transport/transport.hpp"
#include "runtime/wire/handshake.hpp"
#include "tests/catch.hpp"
#include "tests/integration/site_fixture.hpp"

using namespace sublet;
using namespace std::chrono_literals;

namespace {

namespace fs = std::filesystem;

constexpr auto ttl = 3s;

std::string faketime_library() {
  for (const auto& entry : fs::directory_iterator("/usr/lib")) {
    const fs::path library = entry.path() / "faketime/libfaketimeMT.so.1";
    std::error_code none;
    if (fs::exists(library, none)) return library;
  }
  FAIL("libfaketime is not installed: run scripts/setup");
  return {};
}

/// While it lives, programs are started with a wall clock that set() moves afterwards as well.
class WallClock {
 public:
  explicit WallClock(std::string file) : file_(std::move(file)), library_(faketime_library()) {
    set("+0");
    for (const auto& [name, value] : variables()) ::setenv(name, value, 1);
  }
  ~WallClock() { leave_alone(); }
  WallClock(const WallClock&) = delete;
  WallClock& operator=(const WallClock&) = delete;

  /// What is started from now on has the machine's own clock.
  void leave_alone() const {
    for (const auto& [name, value] : variables()) ::unsetenv(name);
  }
  /// @param seconds Ahead of the machine's clock, with its sign.
  void set(const std::string& seconds) const {
    const std::string part = file_ + ".part";
    std::ofstream(part) << seconds << '\n';
    fs::rename(part, file_);
  }
  /// The process has the library loaded: its clock is this one.
  [[nodiscard]] bool rules(pid_t pid) const {
    std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
    for (std::string line; std::getline(maps, line);) {
      if (line.find("libfaketime") != std::string::npos) return true;
    }
    return false;
  }

 private:
  [[nodiscard]] std::array<std::pair<const char*, const char*>, 4> variables() const {
    return {{{"LD_PRELOAD", library_.c_str()},
             {"FAKETIME_TIMESTAMP_FILE", file_.c_str()},
             {"FAKETIME_NO_CACHE", "1"},
             {"FAKETIME_DONT_FAKE_MONOTONIC", "1"}}};
  }

  const std::string file_;
  const std::string library_;
};

api::LeaseGrant acquire(control::HttpClient& manager) {
  const std::string ask =
      R"({"function": "probe@1", "ttl_ms": )" + std::to_string(std::chrono::milliseconds(ttl).count()) + "}";
  return api::from_json<api::LeaseGrant>(
             control::body_of(manager.request("POST", "/v1/leases", ask, 20s)).value())
      .value();
}

/// A client that connects, then only holds what it has.
class Holder {
 public:
  explicit Holder(const api::GrantedWorker& worker) : transport_(transport::open("shm").value()) {
    const wire::Hello hello{
        .slots_log2 = 4, .slot_bytes_log2 = 12, .token = wire::parse_token(worker.token).value()};
    auto connected = transport_->connect(worker.endpoints.at("shm"), wire::bytes_of(hello), 20s);
    INFO((connected ? std::string("connected") : connected.error().message()));
    REQUIRE(connected.ok());
    connection_ = std::move(connected->connection);
  }
  [[nodiscard]] bool lost() {
    transport_->service(10ms);
    std::array<transport::Completion, 1> completion;
    return connection_->poll(completion) == 1 && completion[0].kind == transport::Completion::Kind::down;
  }

 private:
  std::unique_ptr<transport::Transport> transport_;
  std::unique_ptr<transport::Connection> connection_;
};

/// Grants, connects and waits for the lease's end, the clock being set at one of the moments between.
void hold_through_jump(test::SiteFixture& site, const WallClock& clock, const std::string& jump,
                       const std::string& when, bool manager_stops) {
  const auto manager = control::HttpClient::create(site.url()).value();
  if (when == "before the grant") clock.set(jump);
  const TimePoint begin = SteadyClock::now();
  const api::LeaseGrant grant = acquire(*manager);
  if (manager_stops) site.manager().signal(SIGSTOP);
  if (when == "before the connect") clock.set(jump);
  Holder holder(grant.workers.at(0));
  if (when == "in use") clock.set(jump);
  const bool ended = test::eventually([&] { return holder.lost(); });
  site.manager().signal(SIGCONT);
  REQUIRE(ended);  // An hour more would be noticed.
  // It began after `begin`, so it lasted at least its time from there on, but for what clocks round.
  REQUIRE(SteadyClock::now() - begin > ttl - 50ms);
}

std::string state_of_node(const test::SiteFixture& site) {
  return site.directory() + "/node";
}

/// And waits until the node has fetched it: a manager that is stopped hands out nothing.
void deploy_probe(const test::SiteFixture& site) {
  const int deployed = test::Process({test::SiteFixture::program("sublet"), "deploy", "probe@1",
                                      test::SiteFixture::probe_function(), "--manager", site.url()},
                                     site.directory() + "/deploy.log")
                           .wait();
  REQUIRE(deployed == 0);
  const auto fetched = [&] {
    const auto files = fs::directory_iterator(state_of_node(site));
    return std::any_of(begin(files), end(files),
                       [](const auto& file) { return file.path().extension() == ".so"; });
  };
  REQUIRE(test::eventually(fetched));
}

}  // namespace

TEST_CASE("setting a node's clock neither ends a lease nor makes it last") {
  const std::string jump = GENERATE("+3600", "-3600");
  const std::string when = GENERATE("before the grant", "before the connect", "in use");
  CAPTURE(jump, when);
  test::SiteFixture site;
  const WallClock clock(site.directory() + "/clock");
  const test::Process& agent = site.start_agent("n1", 1, {"--warm", "1", "--state-dir", state_of_node(site)});
  clock.leave_alone();
  REQUIRE(clock.rules(agent.pid()));
  for (const pid_t worker : site.workers_of(agent)) REQUIRE(clock.rules(worker));
  deploy_probe(site);
  hold_through_jump(site, clock, jump, when, true);  // The node alone must see to the end.
}

TEST_CASE("setting the manager's clock neither ends a lease nor makes it last") {
  const std::string jump = GENERATE("+3600", "-3600");
  const std::string when = GENERATE("before the grant", "before the connect", "in use");
  const bool manager_stops = GENERATE(true, false);
  CAPTURE(jump, when, manager_stops);
  const std::string file = fs::temp_directory_path() / ("sublet-clock-" + std::to_string(::getpid()));
  const WallClock clock(file);
  test::SiteFixture site;
  clock.leave_alone();
  REQUIRE(clock.rules(site.manager().pid()));
  (void)site.start_agent("n1", 1, {"--warm", "1", "--state-dir", state_of_node(site)});
  deploy_probe(site);
  hold_through_jump(site, clock, jump, when, manager_stops);
  fs::remove(file);
}
