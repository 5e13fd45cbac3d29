#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "runtime/base/file_descriptor.hpp"
#include "runtime/transport/fabric/endpoint.hpp"

namespace sublet::transport::fabric {

/// Runs one blocking set-up call in a thread of its own, so that a peer which stops libfabric 1.17 in
/// the middle of a handshake stops nobody else: whoever waits gives up at its deadline, leaves the
/// thread behind, and the thread frees what it holds when libfabric returns.
class Helper {
 public:
  using Call = std::function<Result<Endpoint>(const Patience&)>;

  Helper(Call call, TimePoint deadline) : shared_(std::make_shared<Shared>()) {
    shared_->patience.deadline = deadline;
    thread_ = std::thread([shared = shared_, call = std::move(call)]() mutable {
      Result<Endpoint> outcome = call(shared->patience);
      call = nullptr;
      const std::lock_guard lock(shared->mutex);
      if (shared->patience.cancelled.load()) return;  // `outcome` closes here.
      shared->outcome.emplace(std::move(outcome));
      const std::uint64_t one = 1;
      (void)!::write(shared->done.get(), &one, sizeof(one));
    });
  }
  ~Helper() {
    if (!thread_.joinable()) return;
    {
      const std::lock_guard lock(shared_->mutex);
      shared_->patience.cancelled.store(true);
    }
    thread_.detach();
  }
  Helper(const Helper&) = delete;
  Helper& operator=(const Helper&) = delete;

  /// Readable once take() has something.
  [[nodiscard]] int done() const noexcept { return shared_->done.get(); }
  /// Takes the word of done(): once.
  [[nodiscard]] bool is_done() noexcept {
    std::uint64_t count = 0;
    return ::read(shared_->done.get(), &count, sizeof(count)) == sizeof(count);
  }
  [[nodiscard]] Result<Endpoint> take() {
    thread_.join();
    const std::lock_guard lock(shared_->mutex);
    return std::move(*shared_->outcome);
  }

 private:
  struct Shared {
    Patience patience;
    FileDescriptor done{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    std::mutex mutex;
    std::optional<Result<Endpoint>> outcome;
  };
  std::shared_ptr<Shared> shared_;
  std::thread thread_;
};

}  // namespace sublet::transport::fabric
