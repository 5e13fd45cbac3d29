#pragma once

#include <filesystem>
#include <future>
#include <span>

#include "runtime/base/digest.hpp"
#include "runtime/control/api.hpp"
#include "runtime/manager/service.hpp"
#include "runtime/manager/state_dir.hpp"
#include "tests/unit/control/http_fixture.hpp"
#include "tests/unit/manager/disk.hpp"

/// A manager's service behind a server of its own, with a clock that the test moves.
namespace sublet::test {

class Manager {
 public:
  explicit Manager(const std::filesystem::path& state) {
    service_ = manager::Service::open(loop_, state, {}, [this] {
                 return start_ + std::chrono::milliseconds(passed_ms_);
               }).value();
    server_ = control::HttpServer::listen(loop_, "127.0.0.1", 0, service_->routes()).value();
    client_ = control::HttpClient::create("http://127.0.0.1:" + std::to_string(server_->port())).value();
    thread_ = std::thread([this] { loop_.run(); });
  }
  ~Manager() {
    loop_.stop();
    thread_.join();
    server_.reset();
  }
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;

  [[nodiscard]] std::uint16_t port() const { return server_->port(); }
  [[nodiscard]] FileDescriptor connect() const { return connect_to(port()); }

  /// The answer of whatever status.
  control::HttpAnswer ask(std::string_view method, const std::string& target, std::string body = {},
                          const control::Pairs& headers = {}) {
    return client_->request(method, target, std::move(body), patience, headers).value();
  }
  template <typename T>
  T get(const std::string& target) {
    return api::from_json<T>(ask("GET", target).body).value();
  }
  control::HttpAnswer deploy(const std::string& name, const std::string& bytes) {
    return ask("PUT", "/v1/functions/" + name + "/1", bytes, {{"Sublet-Digest", digest_of(bytes)}});
  }
  std::uint64_t add_node(const std::string& name = "n") {
    const api::NodeRegistration about{name, "boot-of-" + name, 8, 16ULL << 30, 1, "0.1.0"};
    return api::from_json<api::NodeRegistered>(ask("POST", "/v1/nodes", api::to_json(about)).body)->node;
  }
  /// The status of the answer.
  unsigned hear(std::uint64_t node, const api::Heartbeat& said) {
    return ask("POST", "/v1/nodes/" + std::to_string(node) + "/heartbeat", api::to_json(said)).status;
  }
  /// Time passes, then the manager looks what is due.
  void pass(std::chrono::milliseconds time) {
    passed_ms_ += time.count();
    std::promise<void> done;
    loop_.post([&] {
      service_->tick();
      done.set_value();
    });
    done.get_future().get();
  }
  void see_slurm(Result<manager::slurm::Picture> seen) {
    std::promise<void> done;
    loop_.post([&] {
      service_->see_slurm(std::move(seen));
      done.set_value();
    });
    done.get_future().get();
  }
  /// Everything that came before has been handled.
  void settle() { REQUIRE(ask("GET", "/healthz").status == 200); }

  static std::string digest_of(const std::string& bytes) {
    return to_hex(sha256(std::as_bytes(std::span(bytes))));
  }
  static std::string request(const std::string& method, const std::string& target,
                             const std::string& body = {}, const std::string& headers = {}) {
    return method + " " + target + " HTTP/1.1\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
           headers + "\r\n" + body;
  }
  static std::string deploying(const std::string& name, const std::string& bytes) {
    return request("PUT", "/v1/functions/" + name + "/1", bytes,
                   "Sublet-Digest: " + digest_of(bytes) + "\r\n");
  }

 private:
  const TimePoint start_ = SteadyClock::now();
  std::atomic<std::int64_t> passed_ms_ = 0;
  control::EventLoop loop_;
  std::unique_ptr<manager::Service> service_;
  std::unique_ptr<control::HttpServer> server_;
  std::unique_ptr<control::HttpClient> client_;
  std::thread thread_;
};

/// Nothing has come yet. What this machine sends to itself has arrived when it is sent.
inline bool is_silent(const FileDescriptor& peer) {
  char byte = 0;
  return ::recv(peer.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

/// A state directory, and what is left of it by a manager that is killed.
struct State {
  std::unique_ptr<manager::StateDir> directory = manager::StateDir::open("").value();
  std::filesystem::path path = directory->path() / "live";
  std::filesystem::path killed = directory->path() / "killed";

  State() { std::filesystem::create_directory(path); }
  /// As if it happened now.
  void kill() const { std::filesystem::copy(path, killed, std::filesystem::copy_options::recursive); }
  [[nodiscard]] static std::size_t files(const std::filesystem::path& state) {
    const std::filesystem::directory_iterator all(state / "functions");
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
  }
};

}  // namespace sublet::test
