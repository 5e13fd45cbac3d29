#include "runtime/manager/slurm_watch.hpp"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "runtime/base/assert.hpp"
#include "runtime/manager/slurm_commands.hpp"

namespace sublet::manager::slurm {

Watch::Watch(WatchOptions options, Seen seen)
    : options_(std::move(options)), seen_(std::move(seen)), stop_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  SUBLET_ASSERT(stop_.valid() && options_.period.count() > 0);
  // Signals are the loop's.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Watch::~Watch() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(stop_.get(), &one, sizeof(one));
  thread_.join();
}

void Watch::run() {
  const auto pause = static_cast<int>(std::chrono::milliseconds(options_.period).count());
  pollfd stop{.fd = stop_.get(), .events = POLLIN, .revents = 0};
  do {
    seen_(take_picture(options_.folder, stop_.get()));
  } while (::poll(&stop, 1, pause) == 0);
}

}  // namespace sublet::manager::slurm
