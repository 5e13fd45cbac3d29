#include "runtime/transport/fabric/queue_watch.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <string>

namespace sublet::transport::fabric {
namespace {

bool same(const pollfd& a, const pollfd& b) noexcept {
  return a.fd == b.fd && a.events == b.events;
}

/// The rest are the provider's signals to those that sleep while another thread polls. Nobody does here, and
/// one of them, once raised, is only lowered by such a sleep.
bool carries_data(int descriptor) noexcept {
  int domain = 0;
  socklen_t length = sizeof domain;
  const bool socket = ::getsockopt(descriptor, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0;
  return socket && (domain == AF_INET || domain == AF_INET6);
}

std::uint32_t epoll_events(short events) noexcept {
  return ((events & POLLIN) != 0 ? EPOLLIN : 0U) | ((events & POLLOUT) != 0 ? EPOLLOUT : 0U);
}

}  // namespace

fi_wait_obj wait_object(const Library& library) noexcept {
  return FI_VERSION_LT(library.version(), FI_VERSION(1, 18)) ? FI_WAIT_POLLFD : FI_WAIT_FD;
}

Result<QueueWatch> QueueWatch::make(const Library& library, fid_cq* queue, fi_wait_obj wait, int wake) {
  QueueWatch made;
  made.queue_ = queue;
  made.lists_ = wait == FI_WAIT_POLLFD;
  made.watch_.reset(::epoll_create1(EPOLL_CLOEXEC));
  bool watched = made.watch_.valid() && made.watch(wake, POLLIN);
  if (!made.lists_) {
    int descriptor = -1;
    const int code = ::fi_control(&queue->fid, FI_GETWAIT, &descriptor);
    if (code != 0) return library.failed("fi_control(FI_GETWAIT)", code);
    watched = watched && made.watch(descriptor, POLLIN);
  }
  if (!watched || !made.update()) {
    return Error(Errc::io_error, std::string("cannot watch a connection: ") + std::strerror(errno));
  }
  return made;
}

bool QueueWatch::update() noexcept {
  if (!lists_) return true;
  List list;
  fi_wait_pollfd asked{.change_index = 0, .nfds = list.size(), .fd = list.data()};
  if (::fi_control(&queue_->fid, FI_GETWAIT, &asked) != 0 || asked.nfds > list.size()) return false;
  const std::span now(list.data(), asked.nfds);
  const std::span before(watched_.data(), watched_count_);
  if (std::equal(now.begin(), now.end(), before.begin(), before.end(), same)) return true;
  for (const pollfd& each : before) forget(each.fd);
  watched_ = list;
  watched_count_ = now.size();
  return std::all_of(now.begin(), now.end(), [this](const pollfd& each) {
    return !carries_data(each.fd) || watch(each.fd, each.events);
  });
}

void QueueWatch::forget(int descriptor) noexcept {
  // One that was closed has left by itself.
  ::epoll_ctl(watch_.get(), EPOLL_CTL_DEL, descriptor, nullptr);
}

bool QueueWatch::watch(int descriptor, short events) noexcept {
  epoll_event event{epoll_events(events), {.u64 = 0}};
  return ::epoll_ctl(watch_.get(), EPOLL_CTL_ADD, descriptor, &event) == 0;
}

}  // namespace sublet::transport::fabric
