#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "runtime/base/assert.hpp"
#include "runtime/control/event_loop_impl.hpp"

namespace sublet::control {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

/// A timer that is owned by the handler that waits for it.
struct Ticker : std::enable_shared_from_this<Ticker> {
  Ticker(asio::io_context& io, std::chrono::milliseconds every, std::function<void()> run)
      : timer(io), period(every), work(std::move(run)) {}

  void arm() {
    timer.expires_after(period);
    timer.async_wait([self = shared_from_this()](error_code error) {
      if (error) return;
      self->work();
      self->arm();
    });
  }

  asio::steady_timer timer;
  std::chrono::milliseconds period;
  std::function<void()> work;
};

}  // namespace

EventLoop::EventLoop() : impl_(std::make_unique<Impl>()) {}
EventLoop::~EventLoop() = default;

void EventLoop::run() {
  const auto guard = asio::make_work_guard(impl_->io);
  impl_->io.run();
}

void EventLoop::stop() noexcept {
  impl_->io.stop();
}

void EventLoop::post(std::function<void()> work) {
  asio::post(impl_->io, std::move(work));
}

void EventLoop::after(std::chrono::milliseconds delay, std::function<void()> work) {
  auto timer = std::make_shared<asio::steady_timer>(impl_->io, delay);
  timer->async_wait([timer, run = std::move(work)](error_code error) {
    if (!error) run();
  });
}

void EventLoop::every(std::chrono::milliseconds period, std::function<void()> work) {
  SUBLET_ASSERT(period.count() > 0);
  std::make_shared<Ticker>(impl_->io, period, std::move(work))->arm();
}

void EventLoop::on_signals(const std::vector<int>& signals, std::function<void(int)> work) {
  auto set = std::make_shared<asio::signal_set>(impl_->io);
  for (const int signal : signals) set->add(signal);
  set->async_wait([set, run = std::move(work)](error_code error, int signal) {
    if (!error) run(signal);
  });
}

}  // namespace sublet::control
