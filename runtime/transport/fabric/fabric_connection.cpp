#include "runtime/transport/fabric/fabric_connection.hpp"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <utility>

namespace sublet::transport::fabric {
namespace {

constexpr std::size_t batch = 32;
constexpr std::uint32_t idle_polls_per_event_look = 256;
/// What a peer raised before its end may still be on its way through the data path's own socket.
constexpr std::chrono::milliseconds end_wait_max{250};
constexpr std::chrono::milliseconds linger_max{1000};
constexpr std::chrono::milliseconds linger_at_end_max{100};  ///< When the gate itself goes.
constexpr std::chrono::milliseconds close_flush_max{50};     ///< For large writes that are under way.

constexpr std::uint64_t pack_data(std::uint64_t length, std::uint32_t word) noexcept {
  return length << 32U | word;
}

std::uint64_t number_of(const fi_cq_data_entry& entry) noexcept {
  return reinterpret_cast<std::uint64_t>(entry.op_context);
}

}  // namespace

Result<std::unique_ptr<FabricConnection>> FabricConnection::make(gate::LinkPtr link,
                                                                 std::shared_ptr<gate::Gate::Mailbox> mailbox,
                                                                 Endpoint endpoint,
                                                                 const Capabilities& capabilities) {
  std::unique_ptr<FabricConnection> made(
      new FabricConnection(std::move(link), std::move(mailbox), std::move(endpoint), capabilities));
  FileDescriptor wake(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!wake.valid()) return Error(Errc::io_error, std::string("eventfd: ") + std::strerror(errno));
  const Endpoint& used = made->endpoint_;
  Result<QueueWatch> watch =
      QueueWatch::make(*used.domain->library, used.completions.get(), used.wait, wake.get());
  if (!watch) return watch.error();
  made->watch_ = std::move(*watch);
  made->link_->set_wake(std::move(wake));
  return made;
}

FabricConnection::FabricConnection(gate::LinkPtr link, std::shared_ptr<gate::Gate::Mailbox> mailbox,
                                   Endpoint endpoint, const Capabilities& capabilities)
    : link_(std::move(link)),
      mailbox_(std::move(mailbox)),
      endpoint_(std::move(endpoint)),
      name_(endpoint_.domain->name),
      write_bytes_max_(capabilities.write_bytes_max),
      inline_bytes_(capabilities.inline_bytes) {
  if (!endpoint_.domain->describes_sources()) return;
  for (const auto& [key, region] : endpoint_.domain->regions) {
    sources_.push_back({region.data, region.bytes, ::fi_mr_desc(region.registration.get())});
  }
}

void* FabricConnection::describe(const std::byte* data) const noexcept {
  const std::less_equal<const std::byte*> ordered;
  for (const Source& source : sources_) {
    if (ordered(source.data, data) && !ordered(source.data + source.bytes, data)) return source.descriptor;
  }
  return nullptr;
}

FabricConnection::~FabricConnection() {
  close();
}

Status FabricConnection::make_ready() noexcept {
  for (int i = 0; i < 2; ++i) {  // Once more after arming: something may have come before.
    if (!link_->up() || data_ended_) return Errc::peer_lost;
    const std::byte nothing{};
    const ssize_t code = ::fi_inject(endpoint_.endpoint.get(), &nothing, 0, endpoint_.peer);
    if (code == 0) return {};
    if (code != -FI_EAGAIN) return Errc::peer_lost;
    std::array<Completion, 1> unexpected;
    (void)poll_queue(unexpected);
    (void)arm();
  }
  return Errc::queue_full;
}

Status FabricConnection::write(std::span<const std::span<const std::byte>> pieces, const RemoteRegion& remote,
                               std::uint64_t offset, std::uint32_t word, WriteOptions options) noexcept {
  Status posted = post(pieces, remote, offset, FI_REMOTE_CQ_DATA, word, options);
  if (posted) link_->count_announced();
  return posted;
}

Status FabricConnection::write_silent(std::span<const std::byte> piece, const RemoteRegion& remote,
                                      std::uint64_t offset, WriteOptions options) noexcept {
  const std::array pieces{piece};
  return post(pieces, remote, offset, 0, 0, options);
}

Status FabricConnection::post(std::span<const std::span<const std::byte>> pieces, const RemoteRegion& remote,
                              std::uint64_t offset, std::uint64_t flags, std::uint32_t word,
                              const WriteOptions& options) noexcept {
  if (closed_) return Errc::closed;
  if (!link_->up() || data_ended_) return Errc::peer_lost;
  std::array<iovec, 2> vectors{};
  std::array<void*, 2> descriptors{};
  std::size_t count = 0;
  std::uint64_t total = 0;
  if (pieces.size() > vectors.size()) return Errc::invalid_argument;
  for (const auto piece : pieces) {
    if (piece.empty()) continue;
    if (!sources_.empty()) descriptors[count] = describe(piece.data());
    vectors[count++] = {const_cast<std::byte*>(piece.data()), piece.size()};
    total += piece.size();
  }
  if (total > write_bytes_max_ || offset > remote.bytes || total > remote.bytes - offset)
    return Errc::too_large;
  if (posted_ - completed_ == window) return Errc::queue_full;
  if (options.signal && signalled_tail_ - signalled_head_ == signalled_max) return Errc::queue_full;
  const std::uint64_t number = posted_ + 1;
  const bool ask = options.signal || total > unasked_bytes_max || number - asked_ > unasked_max;
  const fi_rma_iov target{remote.base + offset, total, remote.key};
  fi_msg_rma message{};
  message.msg_iov = vectors.data();
  message.desc = descriptors.data();
  message.addr = endpoint_.peer;
  message.iov_count = count;
  message.rma_iov = &target;
  message.rma_iov_count = 1;
  // libfabric carries it unread. NOLINTNEXTLINE(performance-no-int-to-ptr)
  message.context = reinterpret_cast<void*>(number);
  message.data = pack_data(total, word);
  flags |= (ask ? FI_COMPLETION : 0) | (total <= inline_bytes_ ? FI_INJECT : 0);
  const ssize_t code = ::fi_writemsg(endpoint_.endpoint.get(), &message, flags);
  if (code == -FI_EAGAIN) return Errc::queue_full;
  if (code != 0) {
    data_ended_ = true;
    link_->report_broken(Errc::peer_lost);
    return Errc::peer_lost;
  }
  if (options.signal) signalled_[signalled_tail_++ % signalled_max] = {number, options.context};
  posted_ = number;
  if (ask) asked_ = number;
  return {};
}

std::size_t FabricConnection::poll(std::span<Completion> out) noexcept {
  if (closed_) return 0;
  if (!link_->up()) [[unlikely]]
    return poll_end(out);
  const std::size_t count = poll_queue(out);
  if (count == 0 && ++idle_polls_ % idle_polls_per_event_look == 0) look_at_events();
  return count;
}

std::size_t FabricConnection::poll_queue(std::span<Completion> out) noexcept {
  std::array<fi_cq_data_entry, batch> entries;
  const ssize_t got = ::fi_cq_read(endpoint_.completions.get(), entries.data(), std::min(out.size(), batch));
  if (got == -FI_EAGAIN || got == 0) return 0;
  if (got < 0) {
    on_queue_error();
    return 0;
  }
  std::size_t count = 0;
  for (const fi_cq_data_entry& entry : std::span(entries).first(static_cast<std::size_t>(got))) {
    if ((entry.flags & FI_REMOTE_WRITE) != 0) {
      ++arrivals_;
      out[count++] = {.kind = Completion::Kind::arrival,
                      .word = static_cast<std::uint32_t>(entry.data),
                      .length = entry.data >> 32U};
      continue;
    }
    completed_ = number_of(entry);
    if (signalled_head_ == signalled_tail_) continue;
    const Signalled& first = signalled_[signalled_head_ % signalled_max];
    if (first.number != completed_) continue;
    ++signalled_head_;
    out[count++] = {.kind = Completion::Kind::sent, .context = first.context};
  }
  return count;
}

void FabricConnection::on_queue_error() noexcept {
  fi_cq_err_entry error{};
  while (::fi_cq_readerr(endpoint_.completions.get(), &error, 0) > 0) {
  }
  data_ended_ = true;
  link_->report_broken(Errc::peer_lost);
}

void FabricConnection::look_at_events() noexcept {
  if (data_ended_ || !endpoint_.events) return;
  std::uint32_t type = 0;
  fi_eq_cm_entry entry{};
  const ssize_t got = ::fi_eq_read(endpoint_.events.get(), &type, &entry, sizeof(entry), 0);
  if (got == -FI_EAGAIN || (got >= 0 && type != FI_SHUTDOWN)) return;
  data_ended_ = true;
  link_->report_broken(Errc::peer_lost);
}

std::size_t FabricConnection::poll_end(std::span<Completion> out) noexcept {
  if (end_told_ || out.empty()) return 0;
  if (!ending_) {
    ending_ = true;
    end_wait_until_ = SteadyClock::now() + end_wait_max;
  }
  const std::size_t count = poll_queue(out);
  if (count > 0) return count;
  const bool all_came = arrivals_ >= link_->peer_announced();
  if (!all_came && !data_ended_ && SteadyClock::now() < end_wait_until_) {
    look_at_events();
    return 0;
  }
  end_told_ = true;
  out[0] = {.kind = Completion::Kind::down, .error = link_->cause()};
  endpoint_.endpoint.reset();  // Nothing lands after the end was told.
  link_->hang_up();
  return 1;
}

bool FabricConnection::arm() noexcept {
  if (closed_ || end_told_) return true;
  look_at_events();
  fid* queues[] = {&endpoint_.completions->fid};
  if (::fi_trywait(endpoint_.domain->fabric.get(), queues, 1) != 0) return false;
  if (!watch_.update()) {
    data_ended_ = true;
    link_->report_broken(Errc::io_error);
  }
  return link_->up_ordered();
}

void FabricConnection::close() noexcept {
  if (std::exchange(closed_, true)) return;
  flush();
  link_->say_bye();
  const bool gone = !link_->up() || data_ended_;
  // Closing a socket with unread bytes takes back what it sent last: the endpoint stays until the peer
  // has hung up. Nobody polls it, so nothing lands any more; later versions of libfabric poll all
  // endpoints of a domain together and must close at once.
  const bool lingers =
      endpoint_.peers || FI_VERSION_LT(endpoint_.domain->library->version(), FI_VERSION(1, 18));
  auto kept = std::make_shared<Endpoint>(std::move(endpoint_));
  const auto wait_for_peer = [kept, link = link_, since = SteadyClock::now()](bool at_end) {
    const bool over = !link->up() || SteadyClock::now() - since > (at_end ? linger_at_end_max : linger_max);
    if (over) link->hang_up();
    return over;
  };
  if (gone || !lingers || !mailbox_->post(wait_for_peer)) link_->hang_up();
}

void FabricConnection::flush() noexcept {
  const TimePoint deadline = SteadyClock::now() + close_flush_max;
  std::array<Completion, batch> unwanted;
  while (completed_ < asked_ && link_->up() && !data_ended_ && SteadyClock::now() < deadline) {
    (void)poll_queue(unwanted);
  }
}

}  // namespace sublet::transport::fabric
