#include "runtime/transport/shm/shm_connection.hpp"

#include <unistd.h>

#include <cstring>
#include <utility>

#include "runtime/base/assert.hpp"
#include "runtime/base/clock.hpp"

namespace sublet::transport::shm {
namespace {

/// A writer that was stopped or killed inside our memory does not hold us longer.
constexpr std::chrono::milliseconds shut_max{10};

ControlBlock& block_of(const memory::Region& control) noexcept {
  SUBLET_ASSERT(control.size() >= sizeof(ControlBlock));
  return *reinterpret_cast<ControlBlock*>(control.data());
}

}  // namespace

ShmConnection::ShmConnection(gate::LinkPtr link, memory::Region control, bool acceptor,
                             FileDescriptor doorbell, std::vector<PeerRegion> regions)
    : link_(std::move(link)),
      control_(std::move(control)),
      writer_(acceptor ? block_of(control_).to_connector : block_of(control_).to_acceptor),
      reader_(acceptor ? block_of(control_).to_acceptor : block_of(control_).to_connector),
      doorbell_(std::move(doorbell)),
      regions_(std::move(regions)) {}

ShmConnection::~ShmConnection() {
  close();
}

Status ShmConnection::write(std::span<const std::span<const std::byte>> pieces, const RemoteRegion& remote,
                            std::uint64_t offset, std::uint32_t word, WriteOptions options) noexcept {
  std::size_t total = 0;
  for (const auto piece : pieces) total += piece.size();
  if (writer_.full()) return link_->up() ? Errc::queue_full : Errc::peer_lost;
  if (Status put_all = put(pieces, total, remote, offset, options.signal); !put_all) return put_all;
  note_sent(options);
  link_->count_announced();
  if (writer_.push(word, total)) {
    const std::uint64_t one = 1;
    (void)!::write(doorbell_.get(), &one, sizeof(one));  // EAGAIN: the peer's bell rings already.
  }
  return {};
}

Status ShmConnection::write_silent(std::span<const std::byte> piece, const RemoteRegion& remote,
                                   std::uint64_t offset, WriteOptions options) noexcept {
  const std::array pieces{piece};
  if (Status put_all = put(pieces, piece.size(), remote, offset, options.signal); !put_all) return put_all;
  note_sent(options);
  return {};
}

Status ShmConnection::put(std::span<const std::span<const std::byte>> pieces, std::size_t total,
                          const RemoteRegion& remote, std::uint64_t offset, bool signal) noexcept {
  if (closed_) return Errc::closed;
  if (!link_->up()) return Errc::peer_lost;
  if (pieces.size() > 2) return Errc::invalid_argument;
  if (offset > remote.bytes || total > remote.bytes - offset) return Errc::too_large;
  if (signal && sent_tail_ - sent_head_ == sent_max) return Errc::queue_full;
  bool known = false;
  std::byte* target = find(remote.key, remote.base + offset, total, known);
  if (target == nullptr) return known ? Errc::too_large : Errc::permission_denied;
  if (!writer_.enter()) return Errc::peer_lost;
  for (const auto piece : pieces) {
    if (!piece.empty()) std::memcpy(target, piece.data(), piece.size());
    target += piece.size();
  }
  writer_.leave();
  return {};
}

std::byte* ShmConnection::find(std::uint64_t key, std::uint64_t offset, std::size_t bytes,
                               bool& known) noexcept {
  for (const PeerRegion& region : regions_) {
    if (region.key != key) continue;
    known = true;
    const bool inside = offset <= region.memory.size() && bytes <= region.memory.size() - offset;
    return inside ? region.memory.data() + offset : nullptr;
  }
  return nullptr;
}

void ShmConnection::note_sent(const WriteOptions& options) noexcept {
  if (options.signal) sent_[sent_tail_++ % sent_max] = options.context;
}

std::size_t ShmConnection::poll(std::span<Completion> out) noexcept {
  if (closed_) return 0;
  std::size_t count = 0;
  while (sent_head_ != sent_tail_ && count < out.size()) {
    out[count++] = {.kind = Completion::Kind::sent, .context = sent_[sent_head_++ % sent_max]};
  }
  count += poll_ring(out.subspan(count));
  if (!link_->up()) [[unlikely]]
    count += poll_end(out.subspan(count));
  return count;
}

std::size_t ShmConnection::poll_ring(std::span<Completion> out) noexcept {
  if (end_told_) return 0;
  std::size_t count = 0;
  while (count < out.size()) {
    const auto item = reader_.pop();
    if (!item) break;
    out[count++] = {.kind = Completion::Kind::arrival, .word = item->word, .length = item->length};
  }
  if (count > 0) reader_.publish();
  return count;
}

std::size_t ShmConnection::poll_end(std::span<Completion> out) noexcept {
  // Once more: what the peer wrote before it ended is in the ring by now.
  std::size_t count = poll_ring(out);
  if (end_told_ || count == out.size()) return count;
  end_told_ = true;
  out[count++] = {.kind = Completion::Kind::down, .error = link_->cause()};
  shut();
  link_->hang_up();
  return count;
}

bool ShmConnection::arm() noexcept {
  if (closed_) return true;
  if (armed_) {
    std::uint64_t rings = 0;
    (void)!::read(link_->wake(), &rings, sizeof(rings));  // EAGAIN: nobody rang.
  }
  armed_ = true;
  reader_.arm();
  const bool something =
      sent_head_ != sent_tail_ || (!end_told_ && (!reader_.empty_ordered() || !link_->up_ordered()));
  if (something) reader_.disarm();
  return !something;
}

void ShmConnection::close() noexcept {
  if (std::exchange(closed_, true)) return;
  shut();
  link_->say_bye();
  link_->hang_up();
}

void ShmConnection::shut() noexcept {
  const TimePoint deadline = SteadyClock::now() + shut_max;
  while (!reader_.shut() && SteadyClock::now() < deadline) cpu_relax();
}

}  // namespace sublet::transport::shm
