#include "benchmarks/swarm/loop.hpp"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace sublet::bench {
namespace {

constexpr int events_max = 256;
constexpr std::chrono::milliseconds wait_max{100};

void require(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

}  // namespace

Loop::Loop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  require(epoll_.valid(), "epoll_create1");
}

void Loop::watch(int descriptor, std::uint32_t epoll_events, Watcher& watcher) {
  epoll_event event{.events = epoll_events, .data = {.ptr = &watcher}};
  require(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, descriptor, &event) == 0, "epoll_ctl");
}

void Loop::change(int descriptor, std::uint32_t epoll_events, Watcher& watcher) {
  epoll_event event{.events = epoll_events, .data = {.ptr = &watcher}};
  require(epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, descriptor, &event) == 0, "epoll_ctl");
}

void Loop::at(TimePoint time, std::function<void()> task) {
  timers_.push({time, next_++, std::move(task)});
}

void Loop::run_timers() {
  const TimePoint now = SteadyClock::now();
  while (!timers_.empty() && timers_.top().time <= now) {
    const std::function<void()> task = timers_.top().task;
    timers_.pop();
    task();
  }
}

/// Rounded up: a loop that wakes just before its time would spin until then.
int Loop::wait_ms(TimePoint deadline) const {
  TimePoint until = std::min(deadline, SteadyClock::now() + wait_max);
  if (!timers_.empty()) until = std::min(until, timers_.top().time);
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - SteadyClock::now());
  return static_cast<int>(std::max<std::int64_t>(left.count(), 0));
}

bool Loop::run(const std::function<bool()>& done, TimePoint deadline) {
  std::array<epoll_event, events_max> events{};
  while (!done()) {
    if (SteadyClock::now() >= deadline) return false;
    const int count = epoll_wait(epoll_.get(), events.data(), events_max, wait_ms(deadline));
    require(count >= 0 || errno == EINTR, "epoll_wait");
    for (int i = 0; i < count; ++i) {
      static_cast<Watcher*>(events.at(static_cast<std::size_t>(i)).data.ptr)
          ->on_events(events.at(static_cast<std::size_t>(i)).events);
    }
    run_timers();
  }
  return true;
}

void Loop::run_for(SteadyClock::duration time) {
  run([] { return false; }, SteadyClock::now() + time);
}

}  // namespace sublet::bench
