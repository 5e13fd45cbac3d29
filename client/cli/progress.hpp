#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "runtime/base/clock.hpp"

namespace sublet::cli {

/// One line on standard error about work that lasts longer than a second, kept up to date while this lives
/// and taken away at its end. Only on a terminal; otherwise it does nothing. Has a thread of its own.
class Progress {
 public:
  /// @param text Called by the thread, with the time since the start.
  explicit Progress(std::function<std::string(SteadyClock::duration)> text);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

 private:
  void run();

  std::function<std::string(SteadyClock::duration)> text_;
  TimePoint start_ = SteadyClock::now();
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace sublet::cli
