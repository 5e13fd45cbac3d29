#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/result.hpp"
#include "runtime/transport/gate/frame.hpp"

namespace sublet::transport::gate {

/// The part of a gate connection that its owner thread and the service thread share. Held by both
/// through a shared_ptr, so either may let go first. No lock: the service thread publishes the end
/// once, by `cause_`.
class Link {
 public:
  /// @param socket The gate's stream; open for the connection's life, so that its end tells a death.
  explicit Link(FileDescriptor socket) noexcept : socket_(std::move(socket)) {}

  [[nodiscard]] int socket() const noexcept { return socket_.get(); }
  [[nodiscard]] int wake() const noexcept { return wake_.get(); }

  // Owner thread.

  /// One load: to be asked at every poll.
  [[nodiscard]] bool up() const noexcept { return cause_.load(std::memory_order_acquire) == 0; }
  /// For the last look before a sleep: ordered with the arming of the queue.
  [[nodiscard]] bool up_ordered() const noexcept { return cause_.load(std::memory_order_seq_cst) == 0; }
  [[nodiscard]] Errc cause() const noexcept {
    return static_cast<Errc>(cause_.load(std::memory_order_acquire));
  }
  /// Counts an arrival raised at the peer, for bye and last words.
  void count_announced() noexcept {
    announced_.store(announced_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  /// What the peer said it raised; nothing known is the largest number. Valid once down.
  [[nodiscard]] std::uint64_t peer_announced() const noexcept { return peer_announced_; }
  [[nodiscard]] std::span<const std::byte> last_words() const noexcept {
    return std::span(last_words_).first(last_words_bytes_);
  }
  /// The data path has failed. The end is not told yet: the peer's last words may be on their way, so
  /// the gate hangs up and waits for the peer to do the same.
  void report_broken(Errc cause) noexcept;
  /// Says bye.
  void say_bye() noexcept;
  /// Ends the socket in both directions; the service thread then forgets the link.
  void hang_up() noexcept;

  // Any thread, also a signal handler.
  void say_last_words(std::span<const std::byte> message) noexcept;

  // Service thread.

  /// The event descriptor to wake when the link goes down; set before the owner gets the link.
  void set_wake(FileDescriptor event) noexcept { wake_ = std::move(event); }
  void hear_last_words(std::span<const std::byte> message, std::uint64_t announced) noexcept;
  void hear_bye(std::uint64_t announced) noexcept;
  /// Publishes the end, once; a suspicion of the data path names the cause.
  void set_down(Errc cause) noexcept;

 private:
  FileDescriptor socket_;
  FileDescriptor wake_;
  std::atomic<std::uint32_t> cause_{0};
  std::atomic<std::uint32_t> suspicion_{0};
  std::atomic<std::uint64_t> announced_{0};
  std::uint64_t peer_announced_ = UINT64_MAX;
  std::array<std::byte, last_words_max> last_words_{};
  std::size_t last_words_bytes_ = 0;
};

}  // namespace sublet::transport::gate
