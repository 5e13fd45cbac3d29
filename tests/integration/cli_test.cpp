// The `sublet` program as people run it.
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <string>

#include "tests/catch.hpp"
#include "tests/integration/site_fixture.hpp"

using sublet::test::SiteFixture;

namespace {

struct Ran {
  int code = 0;
  std::string out;  ///< Standard output and error.
};

Ran sublet_cli(const std::string& arguments, const std::string& manager = "http://127.0.0.1:1") {
  const std::string command =
      "SUBLET_MANAGER=" + manager + " " + SiteFixture::program("sublet") + " " + arguments + " 2>&1";
  FILE* const pipe = ::popen(command.c_str(), "r");
  Ran ran;
  std::array<char, 4096> piece{};
  while (const std::size_t size = std::fread(piece.data(), 1, piece.size(), pipe)) {
    ran.out.append(piece.data(), size);
  }
  ran.code = WEXITSTATUS(::pclose(pipe));
  return ran;
}

bool has(const Ran& ran, const std::string& text) {
  return ran.out.find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("sublet tells how it is used") {
  CHECK(sublet_cli("--help").code == 0);
  CHECK(has(sublet_cli("--help"), "invoke NAME@VERSION"));
  CHECK(has(sublet_cli("--version"), "sublet "));
  CHECK(sublet_cli("").code == 2);
  CHECK(has(sublet_cli("frobnicate"), "no command 'frobnicate'"));
  CHECK(has(sublet_cli("drian n1"), "did you mean 'drain'?"));
  CHECK(has(sublet_cli("nodes --jsno"), "did you mean '--json'?"));
  CHECK(has(sublet_cli("usage --by tenants"), "did you mean 'tenant'?"));
  CHECK(has(sublet_cli("help drain"), "Usage: sublet drain NODE..."));
  CHECK(sublet_cli("invoke").code == 2);
  CHECK(sublet_cli("invoke probe@1 --workers 0").code == 2);
  CHECK(sublet_cli("invoke probe@1 --no-such-option").code == 2);
  CHECK(sublet_cli("deploy probe file.so").code == 2);
  CHECK(has(sublet_cli("invoke --help"), "--concurrency"));
  const Ran nobody = sublet_cli("nodes");
  CHECK(nobody.code == 3);
  CHECK(has(nobody, "sublet-manager running at http://127.0.0.1:1?"));
  CHECK(has(sublet_cli("nodes --json"), R"({"error":"unavailable","message":")"));
  CHECK(sublet_cli("invoke probe@1").code == 3);
  CHECK(sublet_cli("nodes --manager nowhere").code == 2);
  CHECK(has(sublet_cli("nodes --json --manager nowhere"), R"({"error":"usage","message":")"));
  for (const char* const wrong :
       {"invoke probe@1 --repeat 0", "invoke probe@1 --repeat 1x", "invoke probe@1 --memory 1X",
        "invoke probe@1 --memory 99999999T", "invoke probe@1 --input", "nodes more", "drain",
        "drain n1 --wait-max 3", "usage --csv --json", "top --interval 0", "revoke seven", "remove probe",
        "completion tcsh", "invoke probe@1 --json=x"}) {
    INFO(wrong);
    const Ran ran = sublet_cli(wrong);
    CHECK(ran.code == 2);
    CHECK(has(ran, "; see sublet "));
  }
}

TEST_CASE("sublet deploys, invokes and lists") {
  SiteFixture site;
  site.start_agent("n1", 2);
  const auto run = [&](const std::string& arguments) { return sublet_cli(arguments, site.url()); };
  REQUIRE(run("deploy probe@1 " + SiteFixture::probe_function()).out == "deployed probe@1\n");
  CHECK(run("deploy probe@1 " + SiteFixture::probe_function()).code == 0);
  CHECK(has(run("deploy probe@1 " + SiteFixture::program("sublet")), "already_exists"));
  CHECK(run("deploy probe@2 /nonexistent.so").code == 1);

  std::ofstream(site.directory() + "/input") << "some input";
  const std::string input = " --input " + site.directory() + "/input ";
  const Ran echoed = run("invoke probe@1" + input);
  CHECK(echoed.code == 0);
  CHECK(echoed.out == "some input");
  CHECK(run("invoke probe@1 --input - --transport tcp < " + site.directory() + "/input").out == "some input");
  const Ran many = run("invoke probe@1 --workers 2 --repeat 50 --concurrency 8 --output " + site.directory() +
                       "/output" + input);
  CHECK(many.code == 0);
  CHECK(has(many, "50 calls, 0 failed"));
  CHECK(has(many, "2 workers over shm"));
  std::string written;
  std::getline(std::ifstream(site.directory() + "/output"), written);
  CHECK(written == "some input");

  const Ran failed = run("invoke probe@1 --entry 1");
  CHECK(failed.code == 6);
  CHECK(has(failed, "function_failed: failed as asked"));
  CHECK(run("invoke probe@1 --output-bytes 4" + input).code == 6);
  CHECK(run("invoke probe@2").code == 4);
  CHECK(run("invoke probe@1 --workers 100 --wait 0").code == 5);
  CHECK(run("invoke probe@1 --input /").code == 1);
  CHECK(run("deploy probe@3 /").code == 1);

  CHECK(has(run("nodes"), "n1"));
  CHECK(has(run("functions"), "probe@1"));
  CHECK(has(run("leases"), "no active leases"));
  CHECK(has(run("leases --all"), "released"));
  CHECK(has(run("leases --json"), "\"leases\""));
}

TEST_CASE("sublet steers nodes, leases and functions") {
  SiteFixture site;
  site.start_agent("n1", 2);
  const auto run = [&](const std::string& arguments) { return sublet_cli(arguments, site.url()); };
  REQUIRE(run("deploy probe@1 " + SiteFixture::probe_function()).code == 0);

  const Ran nobody = run("drain n2");
  CHECK(nobody.code == 4);
  CHECK(has(nobody, "did you mean 'n1'?"));
  CHECK(run("drain n1 --wait --wait-max 60").out == "n1 is drained; it holds 0 of 2 cores\n");
  CHECK(has(run("nodes"), "draining"));
  CHECK(run("invoke probe@1 --wait 0").code == 5);
  CHECK(run("undrain n1 --json").out.starts_with(R"({"nodes":[{"node":)"));
  CHECK(run("invoke probe@1 --wait 60").code == 0);

  const std::string leases = run("leases --all --json").out;
  const std::size_t at = leases.find(R"("lease":)") + 8;
  const std::string lease = leases.substr(at, leases.find(',', at) - at);
  CHECK(has(run("revoke " + lease), "lease " + lease + " had ended before: released"));
  CHECK(run("revoke 7").code == 4);

  CHECK(run("remove probe@1").out == "removed probe@1\n");
  CHECK(run("remove probe@1").code == 4);
  CHECK(has(run("functions"), "no functions"));
}
