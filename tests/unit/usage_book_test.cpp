// The agent's book of what workers count: nothing lost, nothing twice, no number that a worker could not
// have.
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "executor/agent/usage_book.hpp"
#include "runtime/base/limits.hpp"
#include "tests/catch.hpp"

using namespace sublet;
using agent::UsageBook;
using local::UsageRecord;

namespace {

namespace fs = std::filesystem;

class Directory {
 public:
  Directory() : path_((fs::temp_directory_path() / "sublet-usage-XXXXXX").string()) {
    REQUIRE(::mkdtemp(path_.data()) != nullptr);
  }
  ~Directory() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::size_t files_in(const std::string& path) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
}

/// In the worker's place: writes what it likes into the page.
void write(int page, const UsageRecord& record) {
  REQUIRE(::pwrite(page, &record, sizeof(record), 0) == static_cast<ssize_t>(sizeof(record)));
}

void write_file(const std::string& path, const UsageRecord& record) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&record), sizeof(record));
}

}  // namespace

TEST_CASE("a worker's totals are reported until they are answered, its last ones after it has gone") {
  const Directory directory;
  const std::string path = directory / "usage";
  UsageBook book(path);
  REQUIRE(book.open().ok());
  const UsageBook::Page page = book.create().value();
  REQUIRE(page.id < (std::uint64_t{1} << 53U));
  REQUIRE(book.changed().empty());  // It has no lease yet.
  REQUIRE(book.begin(page.id, 77).ok());
  REQUIRE_FALSE(book.begin(page.id, 78).ok());
  REQUIRE_FALSE(book.settled());

  auto news = book.changed();
  REQUIRE(news.size() == 1);
  REQUIRE(news[0].lease == 77);
  REQUIRE(book.changed().size() == 1);  // Again: that was not answered.
  book.answered(news);
  REQUIRE(book.changed().empty());

  write(page.descriptor, {.calls = 3, .execution_ns = 30, .hot_ns = 40, .calls_started = 4});
  news = book.changed();
  REQUIRE(news.size() == 1);
  REQUIRE(news[0].calls == 3);
  REQUIRE(news[0].calls_started == 4);
  write(page.descriptor, {.calls = 4, .execution_ns = 35, .hot_ns = 40, .calls_started = 4});
  book.answered(news);  // Of what was said, not of what was counted since.
  book.end(page.id);
  news = book.changed();
  REQUIRE(news.size() == 1);
  REQUIRE(news[0].calls == 4);
  REQUIRE(files_in(path) == 1);
  book.answered(news);
  REQUIRE(book.changed().empty());
  REQUIRE(book.settled());
  REQUIRE(files_in(path) == 0);
}

TEST_CASE("a worker that never had a lease leaves nothing") {
  const Directory directory;
  UsageBook book(directory / "usage");
  REQUIRE(book.open().ok());
  const UsageBook::Page page = book.create().value();
  REQUIRE(files_in(directory / "usage") == 1);
  book.end(page.id);
  book.end(page.id);
  REQUIRE(book.changed().empty());
  REQUIRE(files_in(directory / "usage") == 0);
}

TEST_CASE("what a worker's code writes into its page neither runs backwards nor beyond its age") {
  const Directory directory;
  UsageBook book(directory / "usage");
  REQUIRE(book.open().ok());
  const UsageBook::Page page = book.create().value();
  REQUIRE(book.begin(page.id, 77).ok());
  const TimePoint begin = SteadyClock::now();
  write(page.descriptor, {.calls = 10, .execution_ns = 20, .hot_ns = 30, .calls_started = 11});
  REQUIRE(book.changed()[0].calls == 10);
  write(page.descriptor, {});
  REQUIRE(book.changed()[0].calls == 10);
  REQUIRE(book.changed()[0].execution_ns == 20);
  write(page.descriptor, {.magic = 1, .calls = 99});
  REQUIRE(book.changed()[0].calls == 10);
  constexpr std::uint64_t huge = std::numeric_limits<std::uint64_t>::max();
  write(page.descriptor, {.calls = huge, .execution_ns = huge, .hot_ns = huge, .calls_started = 0});
  const api::WorkerUsage said = book.changed()[0];
  // The lease began a moment before this test's clock was read.
  const auto age =
      static_cast<std::uint64_t>((SteadyClock::now() - begin + std::chrono::seconds(60)).count());
  for (const std::uint64_t total : {said.calls, said.calls_started, said.execution_ns, said.hot_ns})
    REQUIRE(total <= age);
  REQUIRE(said.calls_started >= said.calls);
  REQUIRE(said.lease == 77);
  REQUIRE(::ftruncate(page.descriptor, 0) == 0);
  book.end(page.id);
  REQUIRE(book.changed()[0].calls == said.calls);
}

TEST_CASE("an agent reports what a killed one left, once its workers have gone, under the same numbers") {
  const Directory directory;
  const std::string path = directory / "usage";
  fs::create_directory(path);
  write_file(path + "/1234.77", {.calls = 5, .execution_ns = 50, .hot_ns = 60, .calls_started = 6});
  write_file(path + "/99", {});                      // Its worker had no lease.
  write_file(path + "/1235.77", {.magic = 5});       // Not ours.
  write_file(path + "/none-of-ours", {});            //
  write_file(path + "/99999999999999999999.1", {});  // No number.
  write_file(path + "/1236.9007199254740992", {});   // No lease.
  REQUIRE(::symlink("/dev/zero", (path + "/7.7").c_str()) == 0);
  UsageBook book(path);
  REQUIRE(book.open().ok());
  const auto news = book.changed();
  REQUIRE(news.size() == 1);
  REQUIRE(news[0].id == 1234);
  REQUIRE(news[0].lease == 77);
  REQUIRE(news[0].calls == 5);
  REQUIRE(news[0].calls_started == 6);
  REQUIRE(files_in(path) == 1);
  book.answered(news);
  REQUIRE(book.settled());
  REQUIRE(files_in(path) == 0);
}

TEST_CASE("a directory's usage moves into another one") {
  const Directory directory;
  for (const char* name : {"from", "to"}) fs::create_directory(directory / name);
  write_file(directory / "from/1234.77", {.calls = 5});
  write_file(directory / "from/99", {});
  REQUIRE(agent::holds_usage(directory / "from"));
  REQUIRE(agent::adopt_usage(directory / "from", directory / "to").ok());
  REQUIRE_FALSE(agent::holds_usage(directory / "from"));
  REQUIRE(fs::exists(directory / "to/1234.77"));
  REQUIRE_FALSE(fs::exists(directory / "to/99"));
  REQUIRE_FALSE(agent::holds_usage(directory / "nowhere"));
}

TEST_CASE("each manager has a part of the state directory for what it is to hear of") {
  const Directory directory;
  const std::string state = directory / "state";
  const std::string one = agent::usage_directory(state, "http://host:7400");
  const std::string other = agent::usage_directory(state, "http://[::1]:7400");
  REQUIRE(one != other);
  for (const std::string& path : {one, other}) {
    UsageBook book(path);
    REQUIRE(book.open().ok());
  }
  REQUIRE(agent::usage_of_others(state, "http://host:7400").empty());
  write_file(other + "/1234.77", {.calls = 5});
  REQUIRE(agent::usage_of_others(state, "http://host:7400") == std::vector<std::string>{other});
  REQUIRE(agent::usage_of_others(state, "http://[::1]:7400").empty());
  REQUIRE(agent::usage_of_others(directory / "nowhere", "http://host:7400").empty());
}

TEST_CASE("one heartbeat carries a bounded number of workers, the next the others") {
  const Directory directory;
  const std::string path = directory / "usage";
  fs::create_directory(path);
  constexpr std::size_t count = limits::node_workers_max + 10;
  for (std::size_t id = 1; id <= count; ++id)
    write_file(path + "/" + std::to_string(id) + ".77", {.calls = id});
  UsageBook book(path);
  REQUIRE(book.open().ok());
  const auto first = book.changed();
  REQUIRE(first.size() == limits::node_workers_max);
  book.answered(first);
  const auto second = book.changed();
  REQUIRE(second.size() == 10);
  book.answered(second);
  REQUIRE(book.settled());
}
