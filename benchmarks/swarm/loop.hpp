#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <vector>

#include "runtime/base/clock.hpp"
#include "runtime/base/file_descriptor.hpp"

namespace sublet::bench {

/// What a Loop tells about a descriptor.
class Watcher {
 public:
  Watcher() = default;
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;
  virtual ~Watcher() = default;

  virtual void on_events(std::uint32_t epoll_events) = 0;
};

/// Descriptors and times of one thread: epoll and a heap, nothing else, since the load that it makes shares
/// the machine with what it measures.
class Loop {
 public:
  /// Throws std::runtime_error.
  Loop();

  /// @param watcher Must outlive the descriptor.
  void watch(int descriptor, std::uint32_t epoll_events, Watcher& watcher);
  void change(int descriptor, std::uint32_t epoll_events, Watcher& watcher);
  void at(TimePoint time, std::function<void()> task);

  /// Runs until `done` says so or `deadline` has come; true when done.
  bool run(const std::function<bool()>& done, TimePoint deadline);
  void run_for(SteadyClock::duration time);

 private:
  struct Timer {
    TimePoint time;
    std::uint64_t number;  // Equal times run in the order of their calls.
    std::function<void()> task;

    bool operator<(const Timer& other) const noexcept {
      return time != other.time ? time > other.time : number > other.number;
    }
  };
  [[nodiscard]] int wait_ms(TimePoint deadline) const;
  void run_timers();

  FileDescriptor epoll_;
  std::priority_queue<Timer> timers_;
  std::uint64_t next_ = 0;
};

}  // namespace sublet::bench
