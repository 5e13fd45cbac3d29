#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

namespace sublet::control {

/// The one thread of a control-plane program: everything given to it runs on the thread in run(), one
/// thing at a time. Thread safety: stop() and post() from any thread, the rest on the loop's own thread
/// or before run().
class EventLoop {
 public:
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  /// Works until stop().
  void run();
  void stop() noexcept;
  void post(std::function<void()> work);
  /// Once, after `delay`.
  void after(std::chrono::milliseconds delay, std::function<void()> work);
  /// Again and again; a tick that comes late does not make the next ones come sooner.
  void every(std::chrono::milliseconds period, std::function<void()> work);
  /// Takes the signals' dispositions for the life of the loop.
  void on_signals(const std::vector<int>& signals, std::function<void(int)> work);

  struct Impl;
  [[nodiscard]] Impl& impl() noexcept { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace sublet::control
