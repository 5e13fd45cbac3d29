#include <filesystem>
#include <fstream>
#include <span>

#include "runtime/base/digest.hpp"
#include "runtime/manager/function_store.hpp"
#include "runtime/manager/options.hpp"
#include "runtime/manager/state_dir.hpp"
#include "tests/catch.hpp"

using namespace sublet;
using manager::FunctionStore;
using manager::StateDir;

namespace {

std::string digest_of(const std::string& bytes) {
  return to_hex(sha256(std::as_bytes(std::span(bytes))));
}

struct Store {
  std::unique_ptr<StateDir> state = StateDir::open("").value();
  std::unique_ptr<FunctionStore> functions = FunctionStore::open(state->path() / "functions").value();

  Result<FunctionStore::Deployed> deploy(const std::string& name, const std::string& version,
                                         const std::string& bytes) {
    return functions->deploy(name, version, digest_of(bytes), bytes);
  }
};

Result<manager::CommandLine> parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "sublet-manager");
  return manager::parse_command_line(static_cast<int>(arguments.size()), arguments.data());
}

}  // namespace

TEST_CASE("a version's bytes never change") {
  Store store;
  const FunctionStore::Deployed first = store.deploy("f", "1", "bytes").value();
  REQUIRE(first.fresh);
  REQUIRE(first.info.id == 1);
  const FunctionStore::Deployed again = store.deploy("f", "1", "bytes").value();
  REQUIRE_FALSE(again.fresh);
  REQUIRE(again.info.id == 1);
  REQUIRE(store.deploy("f", "1", "other").error().code() == Errc::already_exists);
  REQUIRE(*store.functions->bytes(1).value() == "bytes");
}

TEST_CASE("a name alone means the version deployed last") {
  Store store;
  REQUIRE(store.deploy("f", "2", "a").ok());
  REQUIRE(store.deploy("f", "1", "b").ok());
  REQUIRE(store.deploy("g", "9", "c").ok());
  REQUIRE(store.functions->resolve("f")->version == "1");
  REQUIRE(store.functions->resolve("f@2")->id == 1);
  REQUIRE(store.functions->resolve("h").error().code() == Errc::not_found);
  REQUIRE(store.functions->resolve("f@").error().code() == Errc::not_found);
}

TEST_CASE("a removed function's number is not used again") {
  Store store;
  REQUIRE(store.deploy("f", "1", "a").ok());
  REQUIRE(store.functions->remove(1).ok());
  REQUIRE(store.functions->bytes(1).error().code() == Errc::not_found);
  REQUIRE(store.functions->remove(1).error().code() == Errc::not_found);
  REQUIRE(store.deploy("f", "1", "changed")->info.id == 2);
}

TEST_CASE("malformed deployments are refused") {
  Store store;
  for (const char* name : {"", "F", "-f", ".f", "f/g", "..", "f g", "by-id", "f\n"}) {
    INFO(name);
    REQUIRE(store.deploy(name, "1", "a").error().code() == Errc::invalid_argument);
  }
  REQUIRE(store.deploy(std::string(65, 'f'), "1", "a").error().code() == Errc::invalid_argument);
  REQUIRE(store.deploy(std::string(64, 'f'), "1.0_b-2", "a").ok());
  REQUIRE(store.deploy("f", "1", "").error().code() == Errc::invalid_argument);
  REQUIRE(store.functions->deploy("f", "1", digest_of("a"), "b").error().code() == Errc::invalid_argument);
  REQUIRE(store.functions->deploy("f", "1", "", "b").error().code() == Errc::invalid_argument);
}

TEST_CASE("bytes that left the disk are an error, not another function") {
  Store store;
  REQUIRE(store.deploy("f", "1", "bytes").ok());
  std::filesystem::remove(store.state->path() / "functions" / "1");
  REQUIRE(store.functions->bytes(1).error().code() == Errc::io_error);
}

TEST_CASE("a temporary state directory is its user's alone and goes with its owner") {
  std::filesystem::path path;
  {
    const auto state = StateDir::open("").value();
    path = state->path();
    REQUIRE(std::filesystem::status(path).permissions() == std::filesystem::perms::owner_all);
    std::ofstream(path / "file") << "x";
  }
  REQUIRE_FALSE(std::filesystem::exists(path));
}

TEST_CASE("a state directory has one user at a time and stays") {
  const auto parent = StateDir::open("").value();
  const std::string path = (parent->path() / "state").string();
  auto first = StateDir::open(path).value();
  REQUIRE(StateDir::open(path).error().code() == Errc::busy);
  first.reset();
  REQUIRE(StateDir::open(path).ok());
  REQUIRE(StateDir::open((parent->path() / "no" / "parent").string()).error().code() == Errc::io_error);
}

TEST_CASE("the command line is checked") {
  const manager::Options plain = *parse({})->options;
  REQUIRE(plain.listen == "127.0.0.1");
  REQUIRE(plain.port == 7400);
  REQUIRE(parse({"--port", "65535"})->options->port == 65535);
  REQUIRE(parse({"--port", "65536"}).error().code() == Errc::invalid_argument);
  REQUIRE(parse({"--port", "-1"}).error().code() == Errc::invalid_argument);
  REQUIRE(parse({"--listen", "::1"}).ok());
  REQUIRE(parse({"--listen", "127.1.2.3"}).ok());
  for (const char* open : {"0.0.0.0", "::", "192.0.2.1", "::ffff:127.0.0.1"}) {
    INFO(open);
    REQUIRE_THAT(parse({"--listen", open}).error().detail(), Catch::Contains("--allow-public"));
    REQUIRE(parse({"--listen", open, "--allow-public"}).ok());
  }
  REQUIRE(parse({"--listen", "example.org", "--allow-public"}).error().code() == Errc::invalid_argument);
  REQUIRE(parse({"--no-such-flag"}).error().code() == Errc::invalid_argument);
  REQUIRE_FALSE(parse({"--help"})->options.has_value());
  REQUIRE(parse({"--help"})->text.find("print-routes") == std::string::npos);
}
