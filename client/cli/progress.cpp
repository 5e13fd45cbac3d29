#include "client/cli/progress.hpp"

#include <pthread.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <iostream>

#include "client/cli/terminal.hpp"

namespace sublet::cli {

namespace {

using namespace std::chrono_literals;

constexpr auto quiet_at_first = 1s;
constexpr auto refresh = 200ms;
constexpr std::string_view clear_line = "\r\x1b[K";

}  // namespace

Progress::Progress(std::function<std::string(SteadyClock::duration)> text) : text_(std::move(text)) {
  if (::isatty(STDERR_FILENO) != 1) return;
  thread_ = std::thread([this] { run(); });
}

Progress::~Progress() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Progress::run() {
  std::unique_lock lock(mutex_);
  const auto ended = [this] { return ended_; };
  if (changed_.wait_for(lock, quiet_at_first, ended)) return;
  do {
    const std::string line = text_(SteadyClock::now() - start_);
    std::cerr << clear_line << cut(line, screen_size().columns - 1) << std::flush;
  } while (!changed_.wait_for(lock, refresh, ended));
  std::cerr << clear_line << std::flush;
}

}  // namespace sublet::cli
