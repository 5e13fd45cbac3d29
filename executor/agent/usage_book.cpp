#include "executor/agent/usage_book.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <tuple>

#include "runtime/base/digest.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/base/log.hpp"

namespace sublet::agent {
namespace {

namespace fs = std::filesystem;

constexpr const char* usage_name = "/usage/";
constexpr std::uint64_t number_max = (std::uint64_t{1} << 53U) - 1;  // What every JSON reader keeps exact.

struct Name {
  std::uint64_t id = 0;
  std::uint64_t lease = 0;
};

std::optional<Name> parse(const std::string& text) {
  Name name;
  const char* const end = text.data() + text.size();
  const auto id = std::from_chars(text.data(), end, name.id);
  if (id.ec != std::errc{} || name.id == 0 || name.id > number_max) return std::nullopt;
  if (id.ptr == end) return name;
  if (*id.ptr != '.') return std::nullopt;
  const auto lease = std::from_chars(id.ptr + 1, end, name.lease);
  if (lease.ec != std::errc{} || lease.ptr != end) return std::nullopt;
  // One that the manager would refuse must not spoil a heartbeat.
  if (name.lease == 0 || name.lease > number_max) return std::nullopt;
  return name;
}

std::uint64_t random_id() {
  std::uint64_t id = 0;
  while (id == 0) {
    fill_random(std::as_writable_bytes(std::span(&id, 1)));
    id &= number_max;
  }
  return id;
}

/// No total can exceed the nanoseconds that there were to count in.
void raise(std::uint64_t& total, std::uint64_t said, std::uint64_t bound) {
  total = std::max(total, std::min(said, bound));
}

Error failed(const std::string& what) {
  return {Errc::io_error, what + ": " + std::strerror(errno) + "; may the agent write in its --state-dir?"};
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error))
    names.push_back(entry.path().filename().string());
  return names;
}

}  // namespace

Status UsageBook::open() {
  std::error_code error;
  fs::create_directories(directory_, error);
  if (error)
    return Error(Errc::io_error, "cannot make " + directory_ + ": " + error.message() +
                                     "; may the agent write in its --state-dir?");
  const std::lock_guard lock(mutex_);
  recover();
  return {};
}

Result<UsageBook::Page> UsageBook::create() {
  const std::uint64_t id = random_id();
  const std::lock_guard lock(mutex_);
  Result<FileDescriptor> file = local::create_usage_file(path_of(id, 0));
  if (!file) return file.error();
  Entry& entry = entries_[id];
  entry.file = std::move(*file);
  entry.total.id = id;
  return Page{id, entry.file.get()};
}

Status UsageBook::begin(std::uint64_t id, std::uint64_t lease) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end() || found->second.total.lease != 0)
    return Error(Errc::internal, "the worker's usage page is in use");
  if (::rename(path_of(id, 0).c_str(), path_of(id, lease).c_str()) != 0)
    return failed("rename in " + directory_);
  found->second.total.lease = lease;
  found->second.since = SteadyClock::now();
  return {};
}

void UsageBook::end(std::uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end() || found->second.owner != Owner::agent) return;
  close(found);
}

/// Reads for the last time, and forgets what needs no answer.
void UsageBook::close(Entries::iterator entry) {
  Entry& closed = entry->second;
  if (closed.total.lease != 0) read(closed, SteadyClock::now());
  closed.file.reset();
  closed.owner = Owner::gone;
  ++gone_;
  const std::uint64_t lease = closed.total.lease;
  if (lease != 0 && is_news(closed) && gone_ <= limits::usage_kept_max) return;
  if (lease != 0 && is_news(closed)) {
    if (!left_over_)
      log::warning("usage of more than " + std::to_string(limits::usage_kept_max) +
                   " ended workers waits for the manager: the rest stays in " + directory_ +
                   " until it answers");
    left_over_ = true;
  } else {
    ::unlink(path_of(entry->first, lease).c_str());
  }
  --gone_;
  entries_.erase(entry);
}

std::vector<api::WorkerUsage> UsageBook::changed() {
  const std::lock_guard lock(mutex_);
  const TimePoint now = SteadyClock::now();
  std::vector<api::WorkerUsage> news;
  auto entry = entries_.upper_bound(cursor_);
  for (std::size_t left = entries_.size(); left > 0 && news.size() < limits::node_workers_max; --left) {
    if (entry == entries_.end()) entry = entries_.begin();
    Entry& one = entry->second;
    cursor_ = entry->first;
    const auto next = std::next(entry);
    // Asked before reading: once it is let go of, what is read is the last.
    const bool let_go = one.owner == Owner::orphaned && !local::usage_is_held(one.file.get());
    if (one.total.lease != 0 && one.owner != Owner::gone) read(one, now);
    if (one.total.lease != 0 && is_news(one)) news.push_back(one.total);
    if (let_go) close(entry);
    entry = next;
  }
  return news;
}

void UsageBook::answered(const std::vector<api::WorkerUsage>& reported) {
  const std::lock_guard lock(mutex_);
  for (const api::WorkerUsage& one : reported) {
    const auto found = entries_.find(one.id);
    if (found == entries_.end()) continue;
    found->second.told = one;
    found->second.ever_told = true;
    if (found->second.owner != Owner::gone || is_news(found->second)) continue;
    ::unlink(path_of(one.id, one.lease).c_str());
    --gone_;
    entries_.erase(found);
  }
  if (left_over_ && gone_ == 0) recover();
}

bool UsageBook::settled() const {
  const std::lock_guard lock(mutex_);
  return !left_over_ && std::all_of(entries_.begin(), entries_.end(),
                                    [](const auto& entry) { return entry.second.total.lease == 0; });
}

std::string UsageBook::path_of(std::uint64_t id, std::uint64_t lease) const {
  const std::string path = directory_ + "/" + std::to_string(id);
  return lease == 0 ? path : path + "." + std::to_string(lease);
}

void UsageBook::recover() {
  left_over_ = false;
  for (const std::string& name : names_in(directory_)) recover_file(name);
  if (gone_ > 0)
    log::info("usage of earlier workers that the manager has not answered for: " + std::to_string(gone_));
}

void UsageBook::recover_file(const std::string& name) {
  const std::optional<Name> parsed = parse(name);
  if (parsed && entries_.contains(parsed->id)) return;
  const std::string path = directory_ + "/" + name;
  if (!parsed || parsed->lease == 0) {
    ::unlink(path.c_str());
    return;
  }
  if (entries_.size() >= limits::usage_kept_max) {
    left_over_ = true;
    return;
  }
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file.valid() && errno != ELOOP) {  // Out of descriptors, perhaps: it waits.
    log::warning("cannot read " + path + " now: " + std::strerror(errno));
    left_over_ = true;
    return;
  }
  if (!file.valid() || !local::read_usage(file.get())) {
    log::warning(path + " is no usage page: removed");
    ::unlink(path.c_str());
    return;
  }
  Entry& entry = entries_[parsed->id];
  entry.total.id = parsed->id;
  entry.total.lease = parsed->lease;
  entry.file = std::move(file);
  entry.owner = Owner::orphaned;
  if (!local::usage_is_held(entry.file.get())) close(entries_.find(parsed->id));
}

void UsageBook::read(Entry& entry, TimePoint now) {
  const Result<local::UsageRecord> said = local::read_usage(entry.file.get());
  if (!said) return;  // The worker's code has spoilt it: what was read before stands.
  const bool known = entry.since != TimePoint::min();
  const std::uint64_t bound =
      known ? std::min(static_cast<std::uint64_t>((now - entry.since).count()), number_max) : number_max;
  api::WorkerUsage& total = entry.total;
  raise(total.calls, said->calls, bound);
  raise(total.calls_started, std::max(said->calls_started, total.calls), bound);
  raise(total.execution_ns, said->execution_ns, bound);
  raise(total.hot_ns, said->hot_ns, bound);
}

bool UsageBook::is_news(const Entry& entry) {
  const auto numbers = [](const api::WorkerUsage& usage) {
    return std::tuple(usage.calls_started, usage.calls, usage.execution_ns, usage.hot_ns);
  };
  return !entry.ever_told || numbers(entry.total) != numbers(entry.told);
}

std::string usage_directory(const std::string& state_dir, const std::string& manager) {
  constexpr std::string_view scheme = "http://";
  std::string name = manager.rfind(scheme, 0) == 0 ? manager.substr(scheme.size()) : manager;
  std::replace(name.begin(), name.end(), '/', '_');
  return state_dir + usage_name + name;
}

std::vector<std::string> usage_of_others(const std::string& state_dir, const std::string& manager) {
  std::vector<std::string> others;
  for (const std::string& name : names_in(state_dir + usage_name)) {
    std::string path = state_dir + usage_name + name;
    if (path != usage_directory(state_dir, manager) && holds_usage(path)) others.push_back(std::move(path));
  }
  return others;
}

Status adopt_usage(const std::string& from, const std::string& to) {
  for (const std::string& name : names_in(from)) {
    const std::optional<Name> parsed = parse(name);
    if (!parsed || parsed->lease == 0) continue;
    std::error_code error;
    fs::rename(fs::path(from) / name, fs::path(to) / name, error);
    if (error)
      return Error(Errc::io_error, "cannot take over what is left in " + from + ": " + error.message());
  }
  return {};
}

bool holds_usage(const std::string& directory) {
  const std::vector<std::string> names = names_in(directory);
  return std::any_of(names.begin(), names.end(), [](const std::string& name) {
    const std::optional<Name> parsed = parse(name);
    return parsed && parsed->lease != 0;
  });
}

}  // namespace sublet::agent
