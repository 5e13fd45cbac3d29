#pragma once

#include <rdma/fi_eq.h>
#include <sys/poll.h>

#include <array>
#include <cstddef>

#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/result.hpp"
#include "runtime/transport/fabric/library.hpp"

namespace sublet::transport::fabric {

/// How a queue is to be opened so that it can be slept on. Up to 1.17 a tcp queue with a descriptor of its
/// own costs an epoll_wait where one without costs a poll of its socket, which is faster; it then tells which
/// descriptors to wait for. Later versions have no such queues.
[[nodiscard]] fi_wait_obj wait_object(const Library& library) noexcept;

/// One descriptor that is readable when a completion queue has something, or when it is woken.
class QueueWatch {
 public:
  QueueWatch() noexcept = default;
  /// @param queue Opened with `wait`: FI_WAIT_FD or wait_object(). @param wake Watched too.
  [[nodiscard]] static Result<QueueWatch> make(const Library& library, fid_cq* queue, fi_wait_obj wait,
                                               int wake);

  [[nodiscard]] int descriptor() const noexcept { return watch_.get(); }
  /// To be called each time before sleeping, after fi_trywait. False: the queue cannot be slept on any more.
  [[nodiscard]] bool update() noexcept;

 private:
  static constexpr std::size_t descriptors_max = 8;
  using List = std::array<pollfd, descriptors_max>;

  void forget(int descriptor) noexcept;
  [[nodiscard]] bool watch(int descriptor, short events) noexcept;

  FileDescriptor watch_;
  fid_cq* queue_ = nullptr;
  bool lists_ = false;  ///< The queue tells a list of descriptors, which changes.
  List watched_{};      ///< The list as it was last, whole.
  std::size_t watched_count_ = 0;
};

}  // namespace sublet::transport::fabric
