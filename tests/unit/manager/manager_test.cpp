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

  Result<api::FunctionInfo> deploy(const std::string& name, const std::string& version,
                                   const std::string& bytes) {
    const Result<FunctionStore::Upload> upload =
        functions->begin(name, version, digest_of(bytes), bytes.size());
    if (!upload) return upload.error();
    if (upload->known) return upload->info;
    const Status written =
        FunctionStore::write(functions->file_of(upload->info.id), upload->info.digest, bytes);
    if (!written) return written.error();
    functions->finish(upload->info);
    return upload->info;
  }
  Result<std::shared_ptr<const std::string>> bytes(std::uint32_t id) {
    const Result<api::FunctionInfo> info = functions->info(id);
    if (!info) return info.error();
    return FunctionStore::read(functions->file_of(id), info->bytes);
  }
};

Result<manager::CommandLine> parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "sublet-manager");
  return manager::parse_command_line(static_cast<int>(arguments.size()), arguments.data());
}

}  // namespace

TEST_CASE("a version's bytes never change") {
  Store store;
  REQUIRE(store.deploy("f", "1", "bytes")->id == 1);
  REQUIRE(store.functions->begin("f", "1", digest_of("bytes"), 5)->known);
  REQUIRE(store.deploy("f", "1", "other").error().code() == Errc::already_exists);
  REQUIRE(*store.bytes(1).value() == "bytes");
}

TEST_CASE("two uploads of one version do not mix") {
  Store store;
  const FunctionStore::Upload first = store.functions->begin("f", "1", digest_of("a"), 1).value();
  REQUIRE(store.functions->begin("f", "1", digest_of("a"), 1).error().code() == Errc::busy);
  store.functions->abandon(first.info);
  REQUIRE(store.functions->info(first.info.id).error().code() == Errc::not_found);
  REQUIRE(store.deploy("f", "1", "b").ok());
}

TEST_CASE("a restarted store has what was deployed, tidies up and says what is damaged") {
  Store store;
  const auto directory = store.state->path() / "functions";
  REQUIRE(store.deploy("f", "1", "a").ok());
  REQUIRE(store.deploy("g", "1", "b").ok());
  REQUIRE(store.deploy("h", "1", "c").ok());
  REQUIRE(store.functions->remove(3).ok());
  std::filesystem::remove(directory / "2");
  std::ofstream(directory / "3") << "of no function";
  const auto deployed = store.functions->list().functions;
  store.functions = FunctionStore::open(directory, deployed, 4).value();
  REQUIRE(*store.bytes(1).value() == "a");
  REQUIRE(store.functions->damaged() == std::vector<std::string>{"g@1"});
  REQUIRE_FALSE(std::filesystem::exists(directory / "3"));
  REQUIRE(store.bytes(2).error().code() == Errc::io_error);
  REQUIRE(store.deploy("g", "1", "b")->id == 2);  // Whole again, under its number.
  REQUIRE(*store.bytes(2).value() == "b");
  REQUIRE(store.deploy("i", "1", "d")->id == 4);
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
  REQUIRE(store.bytes(1).error().code() == Errc::not_found);
  REQUIRE(store.functions->remove(1).error().code() == Errc::not_found);
  REQUIRE(store.deploy("f", "1", "changed")->id == 2);
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
  REQUIRE(store.functions->begin("f", "1", "", 1).error().code() == Errc::invalid_argument);
  const FunctionStore::Upload other = store.functions->begin("f", "1", digest_of("a"), 1).value();
  REQUIRE(
      FunctionStore::write(store.functions->file_of(other.info.id), other.info.digest, "b").error().code() ==
      Errc::invalid_argument);
}

TEST_CASE("bytes that left the disk are an error, not another function") {
  Store store;
  REQUIRE(store.deploy("f", "1", "bytes").ok());
  std::filesystem::remove(store.state->path() / "functions" / "1");
  REQUIRE(store.bytes(1).error().code() == Errc::io_error);
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

TEST_CASE("a configuration names the tenants and what they get") {
  const auto state = StateDir::open("").value();
  const std::string path = (state->path() / "manager.conf").string();
  const auto with = [&](const std::string& text) {
    std::ofstream(path) << text;
    return parse({"--config", path.c_str()});
  };
  const auto options =
      *with("port = 0\n[tenant physics]\nshare = 3\ncores_max = 64\n[tenant a.b]\nleases_max = 7\n")->options;
  REQUIRE(options.port == 0);
  REQUIRE(options.policy.tenants.size() == 2);
  REQUIRE((options.policy.tenants.at("physics").share == 3 &&
           options.policy.tenants.at("physics").cores_max == 64));
  REQUIRE((options.policy.tenants.at("a.b").share == 1 && options.policy.tenants.at("a.b").leases_max == 7));

  const std::string printed = parse({"--config", path.c_str(), "--port", "9", "--print-config"})->text;
  REQUIRE_THAT(printed, Catch::Contains("port = 9\n") && Catch::Contains("[tenant physics]\nshare = 3\n"));
  const manager::Options again = *with(printed)->options;
  REQUIRE((again.port == 9 && again.policy.tenants.size() == 2 &&
           again.policy.tenants.at("physics").cores_max == 64));

  for (const auto& [text, complaint] : std::vector<std::pair<const char*, const char*>>{
           {"[tenant a]\nshares = 1\n", ":2: a tenant has share"},
           {"[tenant a]\nshare = 0\n", ":2: share is at least 1"},
           {"[tenant a]\ncores_max = -1\n", ":2: 'cores_max' takes a whole number"},
           {"[tenant a/b]\n", ":1: a tenant's name"},
           {"[node a]\n", ":1: there are no sections"},
           {"port = 65536\n", ":1)"},
           {"listen = 0.0.0.0\n", ":1) can be reached"},
           {"print-routes = true\n", ":1: there is no option"}}) {
    INFO(text);
    REQUIRE_THAT(with(text).error().detail(), Catch::Contains(path + complaint));
  }
}
