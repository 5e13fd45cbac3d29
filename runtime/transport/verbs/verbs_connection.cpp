#include "runtime/transport/verbs/verbs_connection.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <utility>

namespace sublet::transport::verbs {
namespace {

constexpr std::size_t batch = 16;
constexpr std::uint32_t receives_batch = 64;  ///< Posted again at once, while nothing arrives.
/// What a peer announced before its end may still be on its way.
constexpr std::chrono::milliseconds end_wait_max{250};
constexpr std::chrono::milliseconds close_flush_max{250};  ///< Without progress.
/// A close that waits sees progress at least so often.
constexpr std::uint64_t unasked_bytes_max = std::uint64_t{1} << 20;
/// Writes of our own beside the window: grants and a bye.
constexpr std::uint32_t beside_window = 4;
/// The connector's own first write, which has a number but takes no room from the caller's.
constexpr std::uint32_t greeting = 1;

}  // namespace

VerbsConnection::VerbsConnection(std::shared_ptr<Endpoint> endpoint, bool accepted)
    : endpoint_(std::move(endpoint)),
      queue_pair_(endpoint_->queue_pair()),
      arrivals_queue_(endpoint_->arrivals()),
      inline_bytes_(endpoint_->device().inline_bytes()),
      window_(endpoint_->device().sizes().writes + greeting),
      write_bytes_max_(endpoint_->device().write_bytes_max()),
      granted_(endpoint_->peer_receives()),
      receives_(endpoint_->device().sizes().receives),
      receives_posted_(receives_),
      receives_told_(receives_) {
  for (const Device::Registered& item : endpoint_->device().registered()) {
    sources_[sources_count_++] = {item.begin, item.bytes, item.handle->lkey};
  }
  request_.sg_list = pieces_.data();
  if (accepted) {
    arrivals_ = taken_ = 1;
  } else {
    posted_ = asked_ = announced_ = 1;
    endpoint_->count_announced(announced_);
  }
}

VerbsConnection::~VerbsConnection() {
  close();
}

Status VerbsConnection::write(std::span<const std::span<const std::byte>> pieces, const RemoteRegion& remote,
                              std::uint64_t offset, std::uint32_t word, WriteOptions options) noexcept {
  request_.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
  request_.imm_data = htonl(word);
  Status posted = post(pieces, remote, offset, options);
  if (posted) endpoint_->count_announced(++announced_);
  return posted;
}

Status VerbsConnection::write_silent(std::span<const std::byte> piece, const RemoteRegion& remote,
                                     std::uint64_t offset, WriteOptions options) noexcept {
  request_.opcode = IBV_WR_RDMA_WRITE;
  return post(std::span(&piece, 1), remote, offset, options);
}

Status VerbsConnection::post(std::span<const std::span<const std::byte>> pieces, const RemoteRegion& remote,
                             std::uint64_t offset, const WriteOptions& options) noexcept {
  if (closed_) return Errc::closed;
  if (data_ended_ || end_told_ || endpoint_->cause() != 0) return Errc::peer_lost;
  std::uint64_t total = 0;
  if (!gather(pieces, total)) return Errc::invalid_argument;
  if (total > write_bytes_max_ || offset > remote.bytes || total > remote.bytes - offset)
    return Errc::too_large;
  if (total > inline_bytes_ && !find_sources()) return Errc::invalid_argument;
  request_.wr.rdma.remote_addr = remote.base + offset;
  // A key that the peer never named opens nothing: 0 fails at its device as another would.
  if (!endpoint_->find_remote(remote.key, request_.wr.rdma.rkey)) request_.wr.rdma.rkey = 0;
  if (!has_room(options, request_.opcode == IBV_WR_RDMA_WRITE_WITH_IMM)) return Errc::queue_full;
  const std::uint64_t number = posted_ + 1;
  const bool ask =
      options.signal || number - asked_ >= window_ / 4 || unasked_bytes_ + total >= unasked_bytes_max;
  request_.wr_id = WorkId{number}.pack();
  request_.send_flags =
      (ask ? unsigned{IBV_SEND_SIGNALED} : 0U) | (total <= inline_bytes_ ? unsigned{IBV_SEND_INLINE} : 0U);
  ibv_send_wr* refused = nullptr;
  endpoint_->set_posting(true);
  const int error = ::ibv_post_send(queue_pair_, &request_, &refused);
  endpoint_->set_posting(false);
  if (error == ENOMEM) return Errc::queue_full;
  if (error != 0) {
    data_ended_ = true;
    return Errc::peer_lost;
  }
  posted_ = number;
  unasked_bytes_ = ask ? 0 : unasked_bytes_ + total;
  if (ask) asked_ = number;
  if (options.signal) signalled_[signalled_tail_++ % signalled_max] = {number, options.context};
  return {};
}

bool VerbsConnection::gather(std::span<const std::span<const std::byte>> pieces,
                             std::uint64_t& total) noexcept {
  if (pieces.size() > pieces_.size()) return false;
  int count = 0;
  for (const auto piece : pieces) {
    if (piece.empty()) continue;
    ibv_sge& entry = pieces_[static_cast<std::size_t>(count++)];
    entry.addr = reinterpret_cast<std::uint64_t>(piece.data());
    entry.length = static_cast<std::uint32_t>(std::min<std::uint64_t>(piece.size(), UINT32_MAX));
    total += piece.size();
  }
  request_.num_sge = count;
  return true;
}

bool VerbsConnection::find_sources() noexcept {
  for (ibv_sge& piece : std::span(pieces_).first(static_cast<std::size_t>(request_.num_sge))) {
    bool found = false;
    for (const Source& source : std::span(sources_).first(sources_count_)) {
      const std::uint64_t place = piece.addr - reinterpret_cast<std::uint64_t>(source.begin);
      if (place > source.bytes || piece.length > source.bytes - place) continue;
      piece.lkey = source.key;
      found = true;
      break;
    }
    if (!found) return false;
  }
  return true;
}

bool VerbsConnection::has_room(const WriteOptions& options, bool arrival) noexcept {
  if (posted_ - endpoint_->completed() >= window_) {
    endpoint_->reap();
    if (posted_ - endpoint_->completed() >= window_) return false;
  }
  if (options.signal && signalled_tail_ - signalled_head_ == signalled_max) return false;
  if (!arrival || announced_ < granted_) return true;
  granted_ = endpoint_->granted();
  return announced_ < granted_;
}

std::size_t VerbsConnection::poll(std::span<Completion> out) noexcept {
  if (closed_ || end_told_ || out.empty()) return 0;
  std::size_t count = 0;
  if (signalled_head_ != signalled_tail_) count = poll_sent(out);
  if (count < out.size()) count += poll_arrivals(out.subspan(count));
  if (count > 0) {
    if (taken_ > receives_ / 2) [[unlikely]]
      replenish();
    return count;
  }
  if (taken_ >= receives_batch) replenish();
  if (asked_ != endpoint_->completed()) endpoint_->reap();
  if (data_ended_ || endpoint_->broken() || endpoint_->cause() != 0) [[unlikely]]
    return poll_end(out);
  return 0;
}

std::size_t VerbsConnection::poll_sent(std::span<Completion> out) noexcept {
  endpoint_->reap();
  const std::uint64_t completed = endpoint_->completed();
  std::size_t count = 0;
  while (count < out.size() && signalled_head_ != signalled_tail_) {
    const Signalled& first = signalled_[signalled_head_ % signalled_max];
    if (first.number > completed) break;
    ++signalled_head_;
    out[count++] = {.kind = Completion::Kind::sent, .context = first.context};
  }
  return count;
}

std::size_t VerbsConnection::poll_arrivals(std::span<Completion> out) noexcept {
  if (has_peeked_) [[unlikely]] {
    has_peeked_ = false;
    return take(std::span(&peeked_, 1), out);
  }
  std::array<ibv_wc, batch> completions;  // Left as it is: the device writes what counts.
  const int count =
      ::ibv_poll_cq(arrivals_queue_, static_cast<int>(std::min(out.size(), batch)), completions.data());
  if (count > 0) return take(std::span(completions).first(static_cast<std::size_t>(count)), out);
  if (count < 0) data_ended_ = true;
  return 0;
}

std::size_t VerbsConnection::take(std::span<const ibv_wc> completions, std::span<Completion> out) noexcept {
  std::size_t count = 0;
  for (const ibv_wc& completion : completions) {
    if (completion.status != IBV_WC_SUCCESS || completion.opcode != IBV_WC_RECV_RDMA_WITH_IMM) [[unlikely]] {
      data_ended_ = true;  // Flushed, or a message that no peer of ours sends.
      break;
    }
    out[count++] = {
        .kind = Completion::Kind::arrival, .word = ntohl(completion.imm_data), .length = completion.byte_len};
  }
  arrivals_ += count;
  endpoint_->count_arrivals(arrivals_);
  taken_ += static_cast<std::uint32_t>(count);
  return count;
}

void VerbsConnection::replenish() noexcept {
  while (taken_ >= receives_batch) {
    endpoint_->post_receives(receives_batch);
    taken_ -= receives_batch;
    receives_posted_ += receives_batch;
  }
  if (receives_posted_ - receives_told_ < receives_ / 4) return;
  if (posted_ - endpoint_->completed() >= window_ + beside_window - 1) return;  // At the next poll.
  if (!endpoint_->tell_granted(receives_posted_, posted_ + 1)) return;
  asked_ = ++posted_;  // Who only listens has no other write whose completion would make room.
  receives_told_ = receives_posted_;
}

std::size_t VerbsConnection::poll_end(std::span<Completion> out) noexcept {
  const Farewell& farewell = endpoint_->farewell();
  const bool broken = data_ended_ || endpoint_->broken();
  if (!broken && farewell.kind != Farewell::none && arrivals_ < farewell.announced) {
    const TimePoint now = SteadyClock::now();
    if (!std::exchange(ending_, true)) end_wait_until_ = now + end_wait_max;
    if (now < end_wait_until_) return 0;
  }
  end_told_ = true;
  endpoint_->shut();  // Nothing lands after the end was told.
  Errc error = Errc::peer_lost;
  if (endpoint_->peer_said_bye()) {
    error = Errc::closed;
  } else if (endpoint_->cause() != 0) {
    error = static_cast<Errc>(endpoint_->cause());
  }
  endpoint_->set_down(error);
  out[0] = {.kind = Completion::Kind::down, .error = error};
  return 1;
}

bool VerbsConnection::arm() noexcept {
  if (closed_ || end_told_) return true;
  if (has_peeked_) return false;
  const bool waits_for_sent = signalled_head_ != signalled_tail_;
  endpoint_->arm(waits_for_sent);
  const int found = ::ibv_poll_cq(arrivals_queue_, 1, &peeked_);
  has_peeked_ = found > 0;
  data_ended_ = data_ended_ || found < 0;
  if (has_peeked_) return false;
  if (waits_for_sent) {
    endpoint_->reap();
    if (signalled_[signalled_head_ % signalled_max].number <= endpoint_->completed()) return false;
  }
  return !data_ended_ && !endpoint_->broken() && endpoint_->up_ordered();
}

std::span<const std::byte> VerbsConnection::last_words() const noexcept {
  if (!endpoint_->is_shut()) return {};  // They are still being written.
  const Farewell& farewell = endpoint_->farewell();
  return std::span(farewell.text).first(std::min<std::uint64_t>(farewell.text_bytes, last_words_max));
}

void VerbsConnection::close() noexcept {
  if (std::exchange(closed_, true)) return;
  if (!end_told_ && !data_ended_ && endpoint_->cause() == 0) flush();
  endpoint_->shut();
}

/// Says bye behind all writes and waits for its acknowledgement: then the peer has all of them.
void VerbsConnection::flush() noexcept {
  if (!endpoint_->say_bye(announced_, posted_ + 1)) return;
  asked_ = ++posted_;
  std::uint64_t completed = endpoint_->completed();
  TimePoint deadline = SteadyClock::now() + close_flush_max;
  while (completed < asked_ && !endpoint_->broken() && endpoint_->cause() == 0 &&
         SteadyClock::now() < deadline) {
    endpoint_->reap();
    if (completed == endpoint_->completed()) continue;
    completed = endpoint_->completed();
    deadline = SteadyClock::now() + close_flush_max;
  }
}

}  // namespace sublet::transport::verbs
