// Configuration files and how they meet the command line.

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "runtime/base/config.hpp"
#include "runtime/base/limits.hpp"
#include "tests/catch.hpp"

using namespace sublet;

namespace {

class Folder {
 public:
  Folder() {
    std::string name = std::filesystem::temp_directory_path() / "sublet-config-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }

  [[nodiscard]] std::string file(const std::string& text) const {
    std::ofstream(path_ / "config", std::ios::binary) << text;
    return path_ / "config";
  }
  [[nodiscard]] std::string path() const { return path_; }

 private:
  std::filesystem::path path_;
};

cxxopts::Options described() {
  cxxopts::Options options("program");
  options.add_options()("port", "", cxxopts::value<std::uint64_t>()->default_value("7"))(
      "name", "", cxxopts::value<std::string>())("wide", "")("help", "");
  config::add_options(options);
  return options;
}

Result<config::Settings> read(std::vector<std::string> words,
                              const std::vector<std::string>& kinds = {"tenant"}) {
  cxxopts::Options options = described();
  std::vector<const char*> arguments{"program"};
  for (const std::string& word : words) arguments.push_back(word.c_str());
  return config::read(options, static_cast<int>(arguments.size()), arguments.data(), {"help"}, kinds);
}

/// What is said of a file with this text, without its path.
std::string complaint(const std::string& text) {
  const Folder folder;
  const std::string path = folder.file(text);
  const Result<config::Settings> settings = read({"--config", path});
  REQUIRE_FALSE(settings.ok());
  REQUIRE(settings.error().code() == Errc::invalid_argument);
  REQUIRE_THAT(settings.error().detail(), Catch::StartsWith(path + ":"));
  return settings.error().detail().substr(path.size() + 1);
}

}  // namespace

TEST_CASE("a file says what the command line does not") {
  const Folder folder;
  const std::string path = folder.file(
      "# a comment\r\n; another\r\n\r\n  port =  8 \r\nname = two words = three\r\nwide = true\r\n");
  const config::Settings settings = read({"--config", path}).value();
  REQUIRE(settings.given["port"].as<std::uint64_t>() == 8);
  REQUIRE(settings.given["name"].as<std::string>() == "two words = three");
  REQUIRE(settings.given["wide"].as<bool>());
  REQUIRE(settings.origin("port") == std::string(" (").append(path).append(":4)"));

  const config::Settings other =
      read({"--port=9", "--config", path, "--name", "mine", "--wide=false"}).value();
  REQUIRE(other.given["port"].as<std::uint64_t>() == 9);
  REQUIRE(other.given["name"].as<std::string>() == "mine");
  REQUIRE_FALSE(other.given["wide"].as<bool>());
  REQUIRE(other.origin("port").empty());

  const config::Settings none = read({}).value();
  REQUIRE(none.given["port"].as<std::uint64_t>() == 7);
  REQUIRE_FALSE(none.given["wide"].as<bool>());
  REQUIRE(read({"--config", folder.file("")}).ok());
  REQUIRE(
      read({"--config", folder.file("wide = false\nport = 1")}).value().given["port"].as<std::uint64_t>() ==
      1);
}

TEST_CASE("what is printed is a file that says the same") {
  const Folder folder;
  const std::string path = folder.file("port = 8\nwide = true\n");
  cxxopts::Options options = described();
  const std::string printed = config::print(options, read({"--config", path, "--name=n"}).value(), {"help"});
  REQUIRE(printed == "port = 8\nname = n\nwide = true\n");
  REQUIRE(config::print(options, read({"--config", folder.file(printed)}).value(), {"help"}) == printed);
  REQUIRE(config::print(options, read({}).value(), {"help"}) == "port = 7\n# name =\nwide = false\n");
}

TEST_CASE("sections have keys of their own") {
  const Folder folder;
  const config::Settings settings =
      read({"--config", folder.file("port = 1\n[tenant a]\nport = x\n[ tenant  b ]\nshare = 2\n")}).value();
  const auto& sections = settings.file.sections;
  REQUIRE(sections.size() == 3);
  REQUIRE((sections[1].kind == "tenant" && sections[1].name == "a" && sections[1].entries[0].value == "x"));
  REQUIRE((sections[2].name == "b" && sections[2].line == 4));
  REQUIRE(config::number_of(settings.file, sections[2].entries[0], 2).value() == 2);
  REQUIRE_THAT(config::number_of(settings.file, sections[2].entries[0], 1).error().detail(),
               Catch::Contains(":5: 'share' takes a whole number up to 1, not '2'"));
  REQUIRE_FALSE(config::number_of(settings.file, sections[1].entries[0], 9).ok());
}

TEST_CASE("what is wrong in a file is told with its line") {
  REQUIRE_THAT(complaint("port = 1\nprot = 2\n"), Catch::StartsWith("2: there is no option 'prot'"));
  REQUIRE_THAT(complaint("help = true\n"),
               Catch::StartsWith("1: there is no option 'help' that a file may set"));
  REQUIRE_THAT(complaint("config = x\n"), Catch::StartsWith("1: there is no option 'config'"));
  REQUIRE_THAT(complaint("port = 1\n\nport = 1\n"), Catch::StartsWith("3: 'port' stands at line 1 already"));
  REQUIRE_THAT(complaint("port = many\n"), Catch::StartsWith("1: ") && Catch::Contains("many"));
  REQUIRE_THAT(complaint("port = -1\n"), Catch::StartsWith("1: "));
  REQUIRE_THAT(complaint("port = 99999999999999999999999\n"), Catch::StartsWith("1: "));
  REQUIRE_THAT(complaint("port =\n"), Catch::StartsWith("1: 'port' has no value"));
  REQUIRE_THAT(complaint("wide = yes\n"), Catch::StartsWith("1: 'wide' takes true or false"));
  REQUIRE_THAT(complaint("port\n"), Catch::StartsWith("1: expected 'key = value'"));
  REQUIRE_THAT(complaint("= 1\n"), Catch::StartsWith("1: expected 'key = value'"));
  REQUIRE_THAT(complaint("--port = 1\n"), Catch::StartsWith("1: there is no option '--port'"));
  REQUIRE_THAT(complaint("[tenant]\n"), Catch::StartsWith("1: a section is [KIND NAME]"));
  REQUIRE_THAT(complaint("[tenant a\n"), Catch::StartsWith("1: a section is [KIND NAME]"));
  REQUIRE_THAT(complaint("[tenant a b]\n"), Catch::StartsWith("1: a section is [KIND NAME]"));
  REQUIRE_THAT(complaint("[\n"), Catch::StartsWith("1: a section is [KIND NAME]"));
  REQUIRE_THAT(complaint("[queue a]\n"), Catch::StartsWith("1: there are no sections of kind 'queue'"));
  REQUIRE_THAT(complaint("[tenant a]\n\n[tenant a]\n"), Catch::StartsWith("3: [tenant a] stands at line 1"));
  REQUIRE_THAT(complaint(std::string("port = 1\0\n", 10)), Catch::StartsWith("1: a control character"));
  REQUIRE_THAT(complaint("name = a\rb\n"), Catch::StartsWith("1: a control character"));
}

TEST_CASE("a file that cannot be read is told with the reason") {
  const Folder folder;
  const auto reason = [&](const std::string& path) { return read({"--config", path}).error().detail(); };
  REQUIRE_THAT(reason(folder.path() + "/none"), Catch::Contains("none: No such file"));
  REQUIRE_THAT(reason(folder.path()), Catch::Contains("Is a directory"));
  if (::geteuid() != 0) {  // Root reads everything.
    const std::string path = folder.file("port = 1\n");
    REQUIRE(::chmod(path.c_str(), 0) == 0);
    REQUIRE_THAT(reason(path), Catch::Contains("Permission denied"));
    REQUIRE(::chmod(path.c_str(), 0600) == 0);
  }
  const std::string pipe = folder.path() + "/pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  REQUIRE_THAT(reason(pipe), Catch::Contains("no regular file"));  // And nobody is waited for.
  const Result<config::Settings> large =
      read({"--config", folder.file(std::string(limits::config_bytes_max + 1, '\n'))});
  REQUIRE(large.error().code() == Errc::too_large);
  REQUIRE(read({"--config", folder.file(std::string(limits::config_bytes_max, '\n'))}).ok());
}

TEST_CASE("what is wrong on the command line is told as ever") {
  REQUIRE_THROWS_AS(read({"--prot=1"}), cxxopts::exceptions::exception);
  REQUIRE_THROWS_AS(read({"--port=x"}), cxxopts::exceptions::exception);
}
