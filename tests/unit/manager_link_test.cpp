// What an agent tells its manager, with a manager that answers when the test wants it to.
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "executor/agent/manager_link.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/control/event_loop.hpp"
#include "runtime/control/http_server.hpp"
#include "tests/catch.hpp"

using namespace sublet;
using agent::ManagerLink;
using agent::UsageBook;
using control::HttpRequest;
using control::Responder;

namespace {

constexpr std::chrono::seconds patience{30};

/// Registers any node; keeps what heartbeats say, and may keep their answers back.
class Manager {
 public:
  Manager() {
    server_ = control::HttpServer::listen(loop_, "127.0.0.1", 0, routes()).value();
    thread_ = std::thread([this] { loop_.run(); });
  }
  ~Manager() {
    loop_.stop();
    thread_.join();
    commands_.reset();
    held_.reset();
  }
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;

  [[nodiscard]] std::string url() const { return "http://127.0.0.1:" + std::to_string(server_->port()); }
  /// From the next heartbeat on none is answered but by answer().
  void hold() {
    const std::lock_guard lock(mutex_);
    holding_ = true;
  }
  void answer(unsigned status = 200) {
    const std::lock_guard lock(mutex_);
    loop_.post([status, held = *held_] { send(held, status); });
    held_.reset();
    holding_ = false;
  }
  /// Waits until a heartbeat came for which `wanted` is true; the first of them.
  template <typename Wanted>
  [[nodiscard]] api::Heartbeat wait(Wanted wanted) {
    std::unique_lock lock(mutex_);
    std::optional<api::Heartbeat> found;
    REQUIRE(heard_.wait_for(lock, patience, [&] {
      for (; !found && seen_ < said_.size(); ++seen_) {
        if (wanted(said_[seen_])) found = said_[seen_];
      }
      return found.has_value();
    }));
    return *found;
  }
  [[nodiscard]] std::size_t accounts() {
    const std::lock_guard lock(mutex_);
    std::size_t count = 0;
    for (const api::Heartbeat& beat : said_) count += beat.usage.size();
    return count;
  }

 private:
  static void send(const Responder& responder, unsigned status) {
    if (status == 200) return responder.send({.body = api::to_json(api::HeartbeatAnswer{.time_ms = 1'000})});
    responder.send(Error(Errc::unavailable, "as the test wants"));
  }

  void on_heartbeat(const HttpRequest& request, const Responder& responder) {
    const std::lock_guard lock(mutex_);
    said_.push_back(api::from_json<api::Heartbeat>(request.body).value());
    if (holding_) {
      held_ = responder;
    } else {
      send(responder, 200);
    }
    heard_.notify_all();
  }

  std::vector<control::Route> routes() {
    const auto registered = [](const HttpRequest&, const Responder& responder) {
      responder.send({.status = 201,
                      .body = api::to_json(api::NodeRegistered{
                          .node = 7, .key = to_hex(SecretKey{}), .heartbeat_ms = 1'000, .time_ms = 1'000})});
    };
    return {{"POST", "/v1/nodes", limits::json_body_bytes_max, registered},
            {"POST", "/v1/nodes/{id}/heartbeat", limits::json_body_bytes_max,
             [this](const HttpRequest& request, const Responder& responder) {
               on_heartbeat(request, responder);
             }},
            {"GET", "/v1/nodes/{id}/commands", 0,
             [this](const HttpRequest&, const Responder& responder) { commands_ = responder; }},
            {"DELETE", "/v1/nodes/{id}", 0,
             [](const HttpRequest&, const Responder& responder) { responder.send({.body = "{}"}); }}};
  }

  control::EventLoop loop_;
  std::unique_ptr<control::HttpServer> server_;
  std::thread thread_;
  std::optional<Responder> commands_;
  std::mutex mutex_;
  std::condition_variable heard_;
  std::vector<api::Heartbeat> said_;
  std::size_t seen_ = 0;
  std::optional<Responder> held_;
  bool holding_ = false;
};

/// A link to the manager, its usage in a directory of its own.
class Node {
 public:
  explicit Node(const Manager& manager)
      : directory_(std::filesystem::temp_directory_path() / "sublet-link-XXXXXX") {
    REQUIRE(::mkdtemp(directory_.data()) != nullptr);
    options_.manager = manager.url();
    options_.name = "n1";
    options_.cores = {0};
    options_.state_dir = directory_;
    usage_.emplace(directory_ + "/usage");
    link_.emplace(options_, *usage_);
  }
  ~Node() {
    link_.reset();
    std::error_code error;
    std::filesystem::remove_all(directory_, error);
  }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  [[nodiscard]] ManagerLink& link() { return *link_; }
  [[nodiscard]] UsageBook& usage() { return *usage_; }
  /// In the place of workers that have ended: what each has counted.
  void count_earlier(std::size_t workers) const {
    std::filesystem::create_directory(directory_ + "/usage");
    for (std::size_t id = 1; id <= workers; ++id) {
      const local::UsageRecord record{.calls = id, .calls_started = id};
      std::ofstream file(directory_ + "/usage/" + std::to_string(id) + ".77", std::ios::binary);
      file.write(reinterpret_cast<const char*>(&record), sizeof(record));
    }
  }

 private:
  std::string directory_;
  agent::Options options_;
  std::optional<UsageBook> usage_;
  std::optional<ManagerLink> link_;
};

/// Workers that served leases of these numbers, all of them ended.
api::Heartbeat ended(std::uint64_t first, std::uint64_t count) {
  api::Heartbeat beat;
  for (std::uint64_t lease = first; lease < first + count; ++lease)
    beat.ended.push_back({.worker = static_cast<std::uint32_t>(lease), .lease = lease, .reason = "released"});
  return beat;
}

bool tells_of_the_end(const api::Heartbeat& beat) {
  return !beat.ended.empty();
}

}  // namespace

TEST_CASE("an answer takes only what its heartbeat said has ended, not what has come meanwhile") {
  Manager manager;
  Node node(manager);
  REQUIRE(node.link().start().ok());
  manager.hold();
  node.link().publish(ended(1, 10));
  REQUIRE(manager.wait(tells_of_the_end).ended.size() == 10);
  // As many as are kept: the ten have to go before their answer comes.
  node.link().publish(ended(11, limits::node_workers_max));
  manager.answer();
  const api::Heartbeat next = manager.wait(tells_of_the_end);
  REQUIRE(next.ended.size() == limits::node_workers_max);
  REQUIRE(next.ended.front().lease == 11);
}

TEST_CASE("what has ended is said again with what came meanwhile when its answer is lost, and then no more") {
  Manager manager;
  Node node(manager);
  REQUIRE(node.link().start().ok());
  manager.hold();
  node.link().publish(ended(1, 10));
  REQUIRE(manager.wait(tells_of_the_end).ended.size() == 10);
  node.link().publish(ended(11, 1));
  manager.answer(503);
  const api::Heartbeat again = manager.wait(tells_of_the_end);
  REQUIRE(again.ended.size() == 11);
  REQUIRE(again.ended.front().lease == 1);
  node.link().publish(ended(12, 1));
  const api::Heartbeat next = manager.wait(tells_of_the_end);
  REQUIRE(next.ended.size() == 1);
  REQUIRE(next.ended.front().lease == 12);
}

TEST_CASE("an agent that leaves says all its accounts first, however many heartbeats that takes") {
  constexpr std::size_t accounts = limits::node_workers_max + 1;
  Manager manager;
  Node node(manager);
  node.count_earlier(accounts);
  REQUIRE(node.usage().open().ok());
  manager.hold();
  REQUIRE(node.link().start().ok());
  static_cast<void>(manager.wait([](const api::Heartbeat& beat) { return !beat.usage.empty(); }));
  manager.answer();
  node.link().leave(patience);
  REQUIRE(node.usage().settled());
  REQUIRE(manager.accounts() == accounts);
}
