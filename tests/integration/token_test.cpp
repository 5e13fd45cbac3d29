#include <csignal>

#include "runtime/control/api.hpp"
#include "runtime/control/http_client.hpp"
#include "runtime/transport/transport.hpp"
#include "runtime/wire/handshake.hpp"
#include "tests/catch.hpp"
#include "tests/integration/site_fixture.hpp"
#include "tests/transports.hpp"

using namespace sublet;

namespace {

/// The manager as a program sees it that speaks HTTP alone.
class Manager {
 public:
  explicit Manager(const std::string& url) : client_(control::HttpClient::create(url).value()) {}

  template <typename T>
  T get(const std::string& target) {
    return api::from_json<T>(ask("GET", target, {})).value();
  }
  std::string ask(std::string_view method, const std::string& target, const std::string& body) {
    return control::body_of(client_->request(method, target, body, std::chrono::seconds(20))).value();
  }

 private:
  std::unique_ptr<control::HttpClient> client_;
};

void deploy_probe(const test::SiteFixture& site) {
  const auto deployed = test::Process({test::SiteFixture::program("sublet"), "deploy", "probe@1",
                                       test::SiteFixture::probe_function(), "--manager", site.url()},
                                      site.directory() + "/deploy.log")
                            .wait();
  REQUIRE(deployed == 0);
}

Errc connect(const api::GrantedWorker& worker, const std::string& transport) {
  const wire::Hello hello{
      .slots_log2 = 4, .slot_bytes_log2 = 12, .token = wire::parse_token(worker.token).value()};
  const auto opened = transport::open(transport).value();
  const auto connected =
      opened->connect(worker.endpoints.at(transport), wire::bytes_of(hello), std::chrono::seconds(20));
  REQUIRE_FALSE(connected.ok());
  return connected.error().code();
}

}  // namespace

TEST_CASE("the token of a lease that has ended opens nothing, though its time is not over") {
  const std::string transport = GENERATE(from_range(test::transports()));
  CAPTURE(transport);
  test::SiteFixture site;
  (void)site.start_agent("n1", 1, {"--warm", "1"});
  Manager manager(site.url());
  deploy_probe(site);
  const auto grant = api::from_json<api::LeaseGrant>(
                         manager.ask("POST", "/v1/leases", R"({"function": "probe@1", "ttl_ms": 600000})"))
                         .value();
  REQUIRE(grant.workers.size() == 1);
  const auto ready = [&] {
    const auto nodes = manager.get<api::Nodes>("/v1/nodes").nodes;
    return nodes.size() == 1 && nodes[0].workers_ready > 0;
  };
  REQUIRE_FALSE(ready());
  (void)manager.ask("DELETE", "/v1/leases/" + std::to_string(grant.lease), {});
  // The worker counts as ready again only after its node has heard that the lease has ended.
  REQUIRE(test::eventually(ready));
  REQUIRE(connect(grant.workers[0], transport) == Errc::lease_revoked);
}

TEST_CASE("the token of a lease whose time is over opens nothing, though nobody has said so") {
  const std::string transport = GENERATE(from_range(test::transports()));
  CAPTURE(transport);
  test::SiteFixture site;
  (void)site.start_agent("n1", 1, {"--warm", "1"});
  Manager manager(site.url());
  deploy_probe(site);
  const auto grant = api::from_json<api::LeaseGrant>(
                         manager.ask("POST", "/v1/leases", R"({"function": "probe@1", "ttl_ms": 300})"))
                         .value();
  site.manager().signal(SIGSTOP);
  // The lease began before the answer was here: after its time from now it has ended for sure.
  const TimePoint end = SteadyClock::now() + std::chrono::milliseconds(300 + 50);
  REQUIRE(test::eventually([&] { return SteadyClock::now() > end; }));
  REQUIRE(connect(grant.workers[0], transport) == Errc::lease_expired);
  site.manager().signal(SIGCONT);
}
