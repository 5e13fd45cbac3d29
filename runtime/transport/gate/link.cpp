#include "runtime/transport/gate/link.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace sublet::transport::gate {
namespace {

std::span<const std::byte> bytes_of(const Announced& announced) noexcept {
  return std::as_bytes(std::span(&announced, 1));
}

}  // namespace

void Link::report_broken(Errc cause) noexcept {
  std::uint32_t none = 0;
  if (!suspicion_.compare_exchange_strong(none, static_cast<std::uint32_t>(cause))) return;
  ::shutdown(socket_.get(), SHUT_WR);
}

void Link::say_bye() noexcept {
  const Announced announced{announced_.load(std::memory_order_relaxed)};
  const std::array pieces{bytes_of(announced)};
  send_frame(socket_.get(), FrameType::bye, pieces);
}

void Link::hang_up() noexcept {
  ::shutdown(socket_.get(), SHUT_RDWR);
}

void Link::say_last_words(std::span<const std::byte> message) noexcept {
  const Announced announced{announced_.load(std::memory_order_relaxed)};
  const std::array pieces{bytes_of(announced), message.first(std::min(message.size(), last_words_max))};
  send_frame(socket_.get(), FrameType::last_words, pieces);
}

void Link::hear_last_words(std::span<const std::byte> message, std::uint64_t announced) noexcept {
  if (cause_.load(std::memory_order_relaxed) != 0) return;  // The owner may read them already.
  last_words_bytes_ = std::min(message.size(), last_words_.size());
  std::copy_n(message.begin(), last_words_bytes_, last_words_.begin());
  peer_announced_ = announced;
}

void Link::hear_bye(std::uint64_t announced) noexcept {
  if (cause_.load(std::memory_order_relaxed) == 0) peer_announced_ = announced;
  set_down(Errc::closed);
}

void Link::set_down(Errc cause) noexcept {
  if (cause_.load(std::memory_order_relaxed) != 0) return;
  const std::uint32_t suspicion = suspicion_.load();
  const auto published = suspicion != 0 ? suspicion : static_cast<std::uint32_t>(cause);
  cause_.store(published, std::memory_order_seq_cst);
  const std::uint64_t one = 1;
  if (wake_.valid() && ::write(wake_.get(), &one, sizeof(one)) < 0) {
    // EAGAIN alone is possible: the event is already pending.
  }
}

}  // namespace sublet::transport::gate
