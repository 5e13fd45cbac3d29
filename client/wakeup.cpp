#include "client/wakeup.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

namespace sublet::client {

Result<Wakeup> Wakeup::create() {
  Wakeup wakeup;
  wakeup.file_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wakeup.file_.valid()) return Error(Errc::io_error, std::string("eventfd: ") + std::strerror(errno));
  return wakeup;
}

void Wakeup::wake() const noexcept {
  const std::uint64_t one = 1;
  // Fails only when the counter is full, and then the descriptor is readable.
  [[maybe_unused]] const ssize_t written = ::write(file_.get(), &one, sizeof(one));
}

void Wakeup::drain() const noexcept {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t taken = ::read(file_.get(), &count, sizeof(count));
}

}  // namespace sublet::client
