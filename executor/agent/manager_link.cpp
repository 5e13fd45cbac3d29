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
// A connection that has gone silent must not lose the node: there is time for another one.
constexpr milliseconds heartbeat_max = (limits::node_silent_max - limits::node_heartbeat) / 2;
constexpr milliseconds fetch_max{120'000};
constexpr milliseconds back_off_first{50};
static_assert(limits::agent_back_off_max * 2 < limits::node_silent_max,
              "a manager that is back must hear of its nodes in time");
constexpr int failures_a_line = 64;  ///< Of a row of failures so many make one line in the log.

/// Jittered: the nodes of a site that lost its manager shall not come back all at once.
milliseconds back_off(int failures) {
  thread_local std::minstd_rand random(std::random_device{}());
  const milliseconds full =
      std::min(limits::agent_back_off_max, back_off_first * (1 << std::min(failures, 7)));
  return milliseconds(
      std::uniform_int_distribution<milliseconds::rep>(full.count() / 2, full.count())(random));
}

/// From now on; 0: for ever. A time that is over is said as the last moment.
std::uint64_t lends_ms(const std::optional<TimePoint>& until) {
  if (!until) return 0;
  const auto left = std::chrono::ceil<milliseconds>(*until - SteadyClock::now());
  return static_cast<std::uint64_t>(std::clamp(left, milliseconds(1), limits::lending_max).count());
}

template <typename T>
Result<T> answer_as(Result<control::HttpAnswer> answer) {
  const Result<std::string> body = control::body_of(std::move(answer));
  if (!body) return body.error();
  return api::from_json<T>(*body);
}

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

ManagerLink::ManagerLink(const Options& options, UsageBook& usage)
    : options_(options), usage_(usage), ready_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

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
    // While the manager is away: the lists say which workers are there, so old news may go.
    if (const std::size_t count = heartbeat_.ended.size(); count > limits::node_workers_max)
      forget_ended(ended_gone_ + count - limits::node_workers_max);
    lists_known_ = false;
    ++published_;
    dirty_ = true;
  }
  changed_.notify_all();
}

void ManagerLink::forget_ended(std::uint64_t until) {
  if (until <= ended_gone_) return;  // They have had to go meanwhile.
  heartbeat_.ended.erase(heartbeat_.ended.begin(),
                         heartbeat_.ended.begin() + static_cast<std::ptrdiff_t>(until - ended_gone_));
  ended_gone_ = until;
}

std::optional<TimePoint> ManagerLink::when(std::uint64_t time_ms) {
  const std::lock_guard lock(mutex_);
  return clock_.when(time_ms, SteadyClock::now());
}

bool ManagerLink::pause(int failures) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, back_off(failures), [this] { return stopping_; });
}

Status ManagerLink::register_node(control::HttpClient& client) {
  const api::NodeRegistration registration{.name = options_.name,
                                           .machine = machine_id(),
                                           .cores = static_cast<std::uint32_t>(options_.cores.size()),
                                           .memory_bytes = options_.memory_bytes,
                                           .worker_region_bytes = options_.region_bytes,
                                           .version = SUBLET_VERSION};
  const TimePoint sent_at = SteadyClock::now();
  const auto registered = answer_as<api::NodeRegistered>(
      client.request("POST", "/v1/nodes", api::to_json(registration), request_max));
  if (!registered) return registered.error();
  Registered event;
  if (Status parsed = from_hex(registered->key, event.key); !parsed) return parsed;
  if (registered->node == 0) return Error(Errc::protocol_error, "the manager gave the node no number");
  std::unique_lock lock(mutex_);
  clock_.heard(sent_at, SteadyClock::now(), registered->time_ms);
  node_ = registered->node;
  lists_known_ = false;
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
  return {};
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
        changed_.wait_for(lock, limits::node_heartbeat, [this] { return dirty_ || stopping_; });
        if (stopping_) return;
      }
    }
    const Status done = node == 0 ? register_node(*report_client_) : report_once(*report_client_);
    if (done) {
      if (failures > 0)
        log::info("the manager answers again after " + std::to_string(failures) + " failures");
      failures = 0;
      continue;
    }
    const bool forgotten = node != 0 && done.error().code() == Errc::not_found;
    if (forgotten) {
      const std::lock_guard lock(mutex_);
      node_ = 0;
    }
    // The first of a row, then one in some minutes: it may be away for hours.
    if (failures % failures_a_line == 0) {
      log::warning(options_.manager +
                   (node == 0 ? " does not register this node: " : " takes no heartbeat: ") +
                   done.error().message() + "; trying again" +
                   (forgotten ? "; when that goes on, another agent has the name " + options_.name +
                                    ": give each node one of its own"
                              : ""));
    }
    if (!pause(++failures)) return;
  }
}

Status ManagerLink::report_once(control::HttpClient& client) {
  api::Heartbeat sent;
  std::uint64_t node = 0;
  std::uint64_t published = 0;
  std::uint64_t ended_said = 0;
  {
    const std::lock_guard lock(mutex_);
    if (lists_known_) {
      sent.unchanged = true;
      sent.ended = heartbeat_.ended;
    } else {
      sent = heartbeat_;
      sent.lends_ms = lends_ms(options_.until);
    }
    node = node_;
    published = published_;
    ended_said = ended_gone_ + heartbeat_.ended.size();
    dirty_ = false;
  }
  sent.usage = usage_.changed();
  const TimePoint sent_at = SteadyClock::now();
  const auto answer = answer_as<api::HeartbeatAnswer>(client.request(
      "POST", "/v1/nodes/" + std::to_string(node) + "/heartbeat", api::to_json(sent), heartbeat_max));
  const TimePoint received_at = SteadyClock::now();
  const std::lock_guard lock(mutex_);
  if (!answer) {
    lists_known_ = false;
    dirty_ = true;
    return answer.error();
  }
  clock_.heard(sent_at, received_at, answer->time_ms);
  usage_.answered(sent.usage);
  lists_known_ = published == published_ && !answer->resend;
  // Now, but not over and over to one that is never content.
  if (answer->resend && sent.unchanged) dirty_ = true;
  // One heartbeat carries so many accounts and no more: the others do not wait for the next tick.
  if (leaving_ && !sent.usage.empty() && !usage_.settled()) dirty_ = true;
  forget_ended(ended_said);
  changed_.notify_all();
  return {};
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
    auto commands = answer_as<api::Commands>(
        command_client_->request("GET", target, {}, limits::command_wait_max + std::chrono::seconds(5)));
    if (!commands) {
      // A manager that never sent what was seen counts anew.
      if (commands.error().code() == Errc::invalid_argument) seen = 0;
      if (!pause(++failures)) return;
      continue;
    }
    failures = 0;
    if (commands->commands.empty()) continue;
    std::unique_lock lock(mutex_);
    events_.commands = std::move(commands->commands);
    const std::uint64_t last = events_.commands.back().sequence;
    obeying_ = true;
    notify(lock);
    // The manager gives a worker back once its node is known to have taken the command that ends its lease.
    changed_.wait(lock, [this] { return stopping_ || !obeying_; });
    seen = last;
  }
}

void ManagerLink::obeyed() {
  {
    const std::lock_guard lock(mutex_);
    if (!events_.commands.empty()) return;  // Others have come meanwhile.
    obeying_ = false;
  }
  changed_.notify_all();
}

ManagerLink::WantedList::iterator ManagerLink::find_wanted(std::uint32_t function) {
  return std::find_if(to_fetch_.begin(), to_fetch_.end(),
                      [function](const Wanted& wanted) { return wanted.function == function; });
}

void ManagerLink::fetch(std::uint32_t function) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = find_wanted(function);
    if (found == to_fetch_.end()) {
      to_fetch_.push_back({.function = function, .at = SteadyClock::now()});
    } else {
      found->at = SteadyClock::now();  // Somebody waits for it now.
    }
  }
  changed_.notify_all();
}

void ManagerLink::forget(std::uint32_t function) {
  const std::lock_guard lock(mutex_);
  if (const auto found = find_wanted(function); found != to_fetch_.end()) to_fetch_.erase(found);
}

std::optional<std::uint32_t> ManagerLink::next_to_fetch() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const auto next = std::min_element(to_fetch_.begin(), to_fetch_.end(),
                                       [](const Wanted& a, const Wanted& b) { return a.at < b.at; });
    if (next == to_fetch_.end()) {
      changed_.wait(lock);
    } else if (const TimePoint at = next->at; at > SteadyClock::now()) {
      changed_.wait_until(lock, at);
    } else {
      return next->function;
    }
  }
  return std::nullopt;
}

void ManagerLink::fetch_loop() {
  while (const auto function = next_to_fetch()) {
    Result<std::string> path = fetch_now(*fetch_client_, *function);
    std::unique_lock lock(mutex_);
    const auto wanted = find_wanted(*function);
    if (wanted == to_fetch_.end()) continue;  // Dropped meanwhile.
    if (!path && !stopping_ && wanted->failures % failures_a_line == 0)
      log::warning("cannot fetch function " + std::to_string(*function) + ": " + path.error().message());
    if (path || path.error().code() == Errc::not_found) {
      to_fetch_.erase(wanted);
    } else {
      wanted->at = SteadyClock::now() + back_off(++wanted->failures);
    }
    events_.fetched.push_back({*function, std::move(path)});
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
    std::unique_lock lock(mutex_);
    if (stopping_) return;
    if (node_ != 0 && timeout > milliseconds(0)) {
      leaving_ = true;
      dirty_ = true;
      changed_.notify_all();
      const bool said = changed_.wait_for(
          lock, timeout, [this] { return !dirty_ && heartbeat_.ended.empty() && usage_.settled(); });
      if (!said) log::warning("the manager has not heard all that the workers counted; it is kept");
    }
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
