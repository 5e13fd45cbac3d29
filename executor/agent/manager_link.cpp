#include "executor/agent/manager_link.hpp"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <random>

#include "runtime/base/limits.hpp"
#include "runtime/base/log.hpp"

namespace sublet::agent {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds request_max{10'000};
constexpr milliseconds fetch_max{120'000};
constexpr milliseconds back_off_first{50};
constexpr milliseconds back_off_max{5'000};

std::string machine_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

/// Complete or not at all: a reader never sees half a library.
Status write_file(const std::string& path, std::string_view bytes) {
  const std::string part = path + ".part";
  {
    std::ofstream file(part, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    file.close();
    if (!file)
      return Error(Errc::io_error, "cannot write " + part + "; check the space in the state directory");
  }
  ::chmod(part.c_str(), 0500);
  if (::rename(part.c_str(), path.c_str()) != 0) return Error(Errc::io_error, "cannot rename " + part);
  return {};
}

}  // namespace

ManagerLink::ManagerLink(const Options& options)
    : options_(options), ready_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

ManagerLink::~ManagerLink() {
  leave(milliseconds(0));
}

Status ManagerLink::start() {
  for (auto* client : {&report_client_, &command_client_, &fetch_client_}) {
    auto made = control::HttpClient::create(options_.manager);
    if (!made) return made.error();
    *client = std::move(*made);
  }
  threads_.emplace_back([this] { report_loop(); });
  threads_.emplace_back([this] { command_loop(); });
  threads_.emplace_back([this] { fetch_loop(); });
  return {};
}

ManagerLink::Events ManagerLink::take_events() {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(ready_.get(), &count, sizeof(count));
  const std::lock_guard lock(mutex_);
  return std::exchange(events_, {});
}

void ManagerLink::notify(const std::unique_lock<std::mutex>&) {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(ready_.get(), &one, sizeof(one));
}

void ManagerLink::publish(api::Heartbeat heartbeat) {
  {
    const std::lock_guard lock(mutex_);
    auto ended = std::move(heartbeat_.ended);
    std::move(heartbeat.ended.begin(), heartbeat.ended.end(), std::back_inserter(ended));
    heartbeat_ = std::move(heartbeat);
    heartbeat_.ended = std::move(ended);
    dirty_ = true;
  }
  changed_.notify_all();
}

void ManagerLink::fetch(std::uint32_t function) {
  {
    const std::lock_guard lock(mutex_);
    if (std::find(to_fetch_.begin(), to_fetch_.end(), function) != to_fetch_.end()) return;
    to_fetch_.push_back(function);
  }
  changed_.notify_all();
}

bool ManagerLink::pause(int failures) {
  thread_local std::minstd_rand random(std::random_device{}());
  const milliseconds full = std::min(back_off_max, back_off_first * (1 << std::min(failures, 7)));
  const milliseconds jittered(
      std::uniform_int_distribution<milliseconds::rep>(full.count() / 2, full.count())(random));
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, jittered, [this] { return stopping_; });
}

bool ManagerLink::register_node(control::HttpClient& client) {
  const api::NodeRegistration registration{.name = options_.name,
                                           .machine = machine_id(),
                                           .cores = static_cast<std::uint32_t>(options_.cores.size()),
                                           .memory_bytes = options_.memory_bytes,
                                           .worker_region_bytes = options_.region_bytes,
                                           .version = SUBLET_VERSION};
  const auto body =
      control::body_of(client.request("POST", "/v1/nodes", api::to_json(registration), request_max));
  const auto registered =
      body ? api::from_json<api::NodeRegistered>(*body) : Result<api::NodeRegistered>(body.error());
  Registered event;
  const Status parsed = registered ? from_hex(registered->key, event.key) : Status(registered.error());
  if (!parsed) {
    log::warning("cannot register at " + options_.manager + ": " + parsed.error().message());
    return false;
  }
  std::unique_lock lock(mutex_);
  node_ = registered->node;
  dirty_ = true;
  if (key_text_ != registered->key) {
    key_text_ = registered->key;
    events_.registered = event;
    notify(lock);
  }
  lock.unlock();
  changed_.notify_all();
  log::info("registered as node " + std::to_string(registered->node) + " (" + options_.name + ") at " +
            options_.manager);
  return true;
}

void ManagerLink::report_loop() {
  int failures = 0;
  for (;;) {
    std::uint64_t node = 0;
    {
      std::unique_lock lock(mutex_);
      if (stopping_) return;
      node = node_;
      if (node != 0 && failures == 0) {
        changed_.wait_for(lock, limits::node_heartbeat, [this] { return dirty_ || stopping_ || node_ == 0; });
        if (stopping_) return;
      }
    }
    bool done = false;
    if (node == 0) {
      done = register_node(*report_client_);
    } else {
      const Outcome outcome = report_once(*report_client_);
      done = outcome == Outcome::done;
      if (outcome == Outcome::unknown_node) {
        const std::lock_guard lock(mutex_);
        node_ = 0;
        continue;
      }
    }
    failures = done ? 0 : failures + 1;
    if (!done && !pause(failures)) return;
  }
}

ManagerLink::Outcome ManagerLink::report_once(control::HttpClient& client) {
  api::Heartbeat sent;
  std::uint64_t node = 0;
  {
    const std::lock_guard lock(mutex_);
    sent = heartbeat_;
    node = node_;
    dirty_ = false;
  }
  const auto body = control::body_of(client.request(
      "POST", "/v1/nodes/" + std::to_string(node) + "/heartbeat", api::to_json(sent), request_max));
  const std::lock_guard lock(mutex_);
  if (body) {
    heartbeat_.ended.erase(heartbeat_.ended.begin(),
                           heartbeat_.ended.begin() + static_cast<std::ptrdiff_t>(sent.ended.size()));
    return Outcome::done;
  }
  dirty_ = true;
  if (body.error().code() == Errc::not_found) return Outcome::unknown_node;
  if (!stopping_) log::warning("heartbeat failed: " + body.error().message());
  return Outcome::failed;
}

void ManagerLink::command_loop() {
  std::uint64_t seen = 0;
  std::uint64_t seen_node = 0;
  int failures = 0;
  for (;;) {
    std::uint64_t node = 0;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || node_ != 0; });
      if (stopping_) return;
      node = node_;
    }
    if (node != seen_node) seen = 0;
    seen_node = node;
    const std::string target =
        "/v1/nodes/" + std::to_string(node) + "/commands?after=" + std::to_string(seen);
    const auto body = control::body_of(
        command_client_->request("GET", target, {}, limits::command_wait_max + std::chrono::seconds(5)));
    auto commands = body ? api::from_json<api::Commands>(*body) : Result<api::Commands>(body.error());
    if (!commands) {
      if (!pause(++failures)) return;
      continue;
    }
    failures = 0;
    if (commands->commands.empty()) continue;
    seen = commands->commands.back().sequence;
    std::unique_lock lock(mutex_);
    std::move(commands->commands.begin(), commands->commands.end(), std::back_inserter(events_.commands));
    notify(lock);
  }
}

void ManagerLink::fetch_loop() {
  for (;;) {
    std::uint32_t function = 0;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !to_fetch_.empty(); });
      if (stopping_) return;
      function = to_fetch_.front();
    }
    Result<std::string> path = fetch_now(*fetch_client_, function);
    if (!path)
      log::warning("cannot fetch function " + std::to_string(function) + ": " + path.error().message());
    std::unique_lock lock(mutex_);
    to_fetch_.erase(to_fetch_.begin());
    events_.fetched.push_back({function, std::move(path)});
    notify(lock);
  }
}

Result<std::string> ManagerLink::fetch_now(control::HttpClient& client, std::uint32_t function) {
  auto answer = client.request("GET", "/v1/functions/by-id/" + std::to_string(function), {}, fetch_max);
  const std::string digest_text = answer ? answer->headers.get("sublet-digest") : std::string();
  const auto body = control::body_of(std::move(answer));
  if (!body) return body.error();
  if (to_hex(sha256(std::as_bytes(std::span(*body)))) != digest_text) {
    return Error(Errc::protocol_error, "the function's bytes do not have the digest that the manager names");
  }
  const std::string path = options_.state_dir + "/" + digest_text + ".so";
  if (::access(path.c_str(), R_OK) == 0) return path;
  if (Status written = write_file(path, *body); !written) return written.error();
  return path;
}

void ManagerLink::leave(milliseconds timeout) {
  std::uint64_t node = 0;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
    node = node_;
  }
  changed_.notify_all();
  for (auto* client : {&report_client_, &command_client_, &fetch_client_}) {
    if (*client) (*client)->cancel();
  }
  for (std::thread& thread : threads_) thread.join();
  if (node == 0 || timeout <= milliseconds(0)) return;
  if (auto client = control::HttpClient::create(options_.manager)) {
    const auto left =
        control::body_of((*client)->request("DELETE", "/v1/nodes/" + std::to_string(node), {}, timeout));
    if (!left) log::warning("cannot tell the manager that this node leaves: " + left.error().message());
  }
}

}  // namespace sublet::agent
