#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "runtime/base/assert.hpp"
#include "runtime/transport/gate/gate.hpp"
#include "runtime/transport/gate/internal.hpp"
#include "runtime/wire/handshake.hpp"

namespace sublet::transport::gate {
namespace {

constexpr int events_per_wait = 64;
constexpr int accepts_per_event = 64;
constexpr int reads_per_event = 16;  ///< A peer that floods its gate must not keep the others waiting.

template <typename T>
bool read_front(std::span<const std::byte> bytes, T& value) noexcept {
  if (bytes.size() < sizeof(T)) return false;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return true;
}

/// Splits the body of a hello or an accept.
bool parse_greeting(std::span<const std::byte> body, std::size_t private_max, Greeting& greeting) {
  HandshakeFront front;
  if (!read_front(body, front)) return false;
  body = body.subspan(sizeof(front));
  if (front.private_bytes > private_max ||
      body.size() != std::size_t{front.private_bytes} + front.backend_bytes) {
    return false;
  }
  const auto private_data = body.first(front.private_bytes);
  const auto backend = body.subspan(front.private_bytes);
  greeting.private_data.assign(private_data.begin(), private_data.end());
  greeting.backend.assign(backend.begin(), backend.end());
  return true;
}

}  // namespace

void Gate::service(std::chrono::milliseconds wait_max) {
  const auto pause = lingering_.empty() ? timing_.heartbeat_interval / 2 : lingering_step;
  std::array<epoll_event, events_per_wait> events;
  const int wait = static_cast<int>(std::max<std::int64_t>(std::min(wait_max, pause).count(), 0));
  const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), wait);
  const TimePoint now = SteadyClock::now();
  if (now - last_service_ > timing_.peer_silent_max / 2) {
    // We were away ourselves: what the peers sent meanwhile is still unread.
    for (auto& [id, entry] : entries_) entry.heard = now;
  }
  last_service_ = now;
  for (int i = 0; i < count; ++i)
    on_event(events[static_cast<std::size_t>(i)].data.u64, events[static_cast<std::size_t>(i)].events);
  serve_lingering(false);
  if (now >= next_sweep_) {
    next_sweep_ = now + timing_.heartbeat_interval / 4;
    sweep(now);
  }
}

void Gate::serve_lingering(bool at_end) {
  for (Lingering& posted : mailbox_->take_all()) lingering_.push_back(std::move(posted));
  std::erase_if(lingering_, [&](const Lingering& lingering) { return lingering(at_end); });
}

void Gate::on_event(std::uint64_t id, std::uint32_t events) {
  if (id == listener_event) return admit_all();
  if (id < first_link) return;
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  if (found->second.stage == Stage::connecting) return on_connected(id, found->second);
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) receive(id);
}

void Gate::on_connected(std::uint64_t id, Entry& entry) {
  int error = 0;
  socklen_t length = sizeof(error);
  const int socket = entry.link->socket();
  if (::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (error != 0) return end(id, {Errc::unavailable, std::string("cannot connect: ") + std::strerror(error)});
  epoll_event event{EPOLLIN, {.u64 = id}};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, socket, &event);
  say_hello(id, entry, {});
}

void Gate::admit_all() {
  for (int i = 0; i < accepts_per_event; ++i) {
    FileDescriptor socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      const bool exhausted = errno != EAGAIN;
      if (exhausted && !make_room()) {
        // No descriptor left: look again at the next sweep instead of spinning.
        epoll_event event{0, {.u64 = listener_event}};
        listener_paused_ = ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listener_.get(), &event) == 0;
      }
      return;
    }
    int domain = 0;
    socklen_t length = sizeof(domain);
    ::getsockopt(socket.get(), SOL_SOCKET, SO_DOMAIN, &domain, &length);
    if (domain == AF_UNIX && !same_user(socket.get())) continue;
    const auto half_open = static_cast<std::size_t>(std::ranges::count_if(entries_, [](const auto& item) {
      return item.second.stage == Stage::greeting || item.second.stage == Stage::waiting;
    }));
    if (half_open >= limits::half_open_max && !make_room()) continue;
    (void)add(std::move(socket), Stage::greeting, EPOLLIN);
  }
}

bool Gate::make_room() noexcept {
  // Ids grow: the first one found is the oldest.
  const auto oldest =
      std::ranges::find_if(entries_, [](const auto& item) { return item.second.stage == Stage::greeting; });
  if (oldest == entries_.end()) return false;
  remove(oldest->first);
  return true;
}

void Gate::remove(std::uint64_t id) noexcept {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second.link->socket(), nullptr);
  entries_.erase(found);
}

void Gate::end(std::uint64_t id, Error failure) noexcept {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  switch (entry.stage) {
    case Stage::connecting:
    case Stage::asking:
    case Stage::answered:
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, entry.link->socket(), nullptr);
      entry.failure = failure.code() == Errc::peer_lost
                          ? Error(Errc::unavailable, "the peer hung up during the handshake")
                          : std::move(failure);
      entry.stage = Stage::ended;
      return;
    case Stage::ended:
      return;
    case Stage::live:
      entry.link->set_down(failure.code());
      entry.link->hang_up();
      break;
    case Stage::greeting:
    case Stage::waiting:
      break;
  }
  remove(id);
}

void Gate::make_live(Entry& entry) {
  entry.stage = Stage::live;
  entry.since = entry.heard = entry.pinged = SteadyClock::now();
}

ssize_t Gate::receive_some(Entry& entry) {
  iovec vector{entry.buffer.data() + entry.buffered, entry.buffer.size() - entry.buffered};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(descriptors_max * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = ::recvmsg(entry.link->socket(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0) return got;
  const std::size_t before = entry.greeting.files.size();
  bool excess = (message.msg_flags & MSG_CTRUNC) != 0;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int file = -1;
      std::memcpy(&file, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      entry.greeting.files.emplace_back(file);
    }
  }
  const bool due = entry.stage == Stage::greeting || entry.stage == Stage::asking;
  // Those of an answer that is not taken yet stay, whatever comes behind it.
  const std::size_t now = entry.greeting.files.size();
  excess = excess || now > descriptors_max || (!due && now > before);
  if (!excess) return got;
  entry.greeting.files.clear();
  return 0;  // As if it had hung up.
}

void Gate::receive(std::uint64_t id) {
  for (int i = 0; i < reads_per_event; ++i) {
    const auto found = entries_.find(id);
    if (found == entries_.end() || found->second.stage == Stage::ended) return;
    Entry& entry = found->second;
    const ssize_t got = receive_some(entry);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return end(id, {Errc::peer_lost, "the peer hung up"});
    entry.buffered += static_cast<std::size_t>(got);
    entry.heard = SteadyClock::now();
    if (!parse(id))
      return end(id, {Errc::protocol_error, "the peer does not speak Sublet's protocol; check the address"});
  }
}

bool Gate::parse(std::uint64_t id) {
  while (true) {
    const auto found = entries_.find(id);
    if (found == entries_.end()) return true;
    Entry& entry = found->second;
    FrameHeader header;
    if (!read_front(std::span(entry.buffer).first(entry.buffered), header)) {
      // Foreign bytes are told by the first of them; waiting for a whole header would let them idle.
      return std::memcmp(entry.buffer.data(), &frame_magic, std::min(entry.buffered, sizeof(frame_magic))) ==
             0;
    }
    if (header.magic != frame_magic || header.length > body_bytes_max) return false;
    const std::size_t whole = sizeof(header) + header.length;
    if (entry.buffered < whole) return true;
    std::array<std::byte, body_bytes_max> body;
    std::copy_n(entry.buffer.begin() + sizeof(header), header.length, body.begin());
    std::copy(entry.buffer.begin() + static_cast<std::ptrdiff_t>(whole),
              entry.buffer.begin() + static_cast<std::ptrdiff_t>(entry.buffered), entry.buffer.begin());
    entry.buffered -= whole;
    if (!on_frame(id, static_cast<FrameType>(header.type), std::span(body).first(header.length)))
      return false;
  }
}

bool Gate::on_frame(std::uint64_t id, FrameType type, std::span<const std::byte> body) {
  Entry& entry = entries_.at(id);
  switch (entry.stage) {
    case Stage::greeting:
      if (type != FrameType::hello || !parse_greeting(body, limits::connect_private_bytes, entry.greeting)) {
        return false;
      }
      entry.stage = Stage::waiting;
      entry.since = SteadyClock::now();
      fresh_requests_.push_back(id);
      return true;
    case Stage::asking:
      return on_answer(id, entry, type, body);
    case Stage::live:
    case Stage::answered:
      return on_live_frame(entry, type, body);
    case Stage::ended:
      return true;
    case Stage::waiting:
    case Stage::connecting:
      return false;  // It talks out of turn.
  }
  return false;
}

bool Gate::on_answer(std::uint64_t id, Entry& entry, FrameType type, std::span<const std::byte> body) {
  if (type == FrameType::accept) {
    if (!parse_greeting(body, limits::accept_private_bytes, entry.greeting)) return false;
    entry.stage = Stage::answered;
    return true;
  }
  if (type != FrameType::refuse) return false;
  end(id, wire::parse_refusal(body));
  return true;
}

bool Gate::on_live_frame(Entry& entry, FrameType type, std::span<const std::byte> body) {
  Announced announced;
  switch (type) {
    case FrameType::ping:
      return body.empty();
    case FrameType::last_words:
      if (!read_front(body, announced) || body.size() > sizeof(announced) + last_words_max) return false;
      entry.link->hear_last_words(body.subspan(sizeof(announced)), announced.arrivals);
      return true;
    case FrameType::bye:
      if (!read_front(body, announced) || body.size() != sizeof(announced)) return false;
      entry.link->hear_bye(announced.arrivals);
      return true;
    default:
      return false;
  }
}

void Gate::sweep(TimePoint now) {
  if (std::exchange(listener_paused_, false)) {
    epoll_event event{EPOLLIN, {.u64 = listener_event}};
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listener_.get(), &event);
  }
  for (auto next = entries_.begin(); next != entries_.end();) {
    const std::uint64_t id = next->first;
    Entry& entry = next->second;
    ++next;  // The entry may go below.
    if (entry.stage == Stage::greeting || entry.stage == Stage::waiting) {
      // Who has said hello waits for us, and we may be busy with the set-up of another for handshake_max.
      const auto patience = timing_.handshake_max * (entry.stage == Stage::waiting ? 2 : 1);
      if (now - entry.since > patience) remove(id);
    } else if (entry.stage == Stage::live) {
      if (now - entry.heard > timing_.peer_silent_max) {
        end(id, {Errc::peer_lost, "the peer fell silent"});
      } else if (now - entry.pinged >= timing_.heartbeat_interval) {
        entry.pinged = now;
        send_frame(entry.link->socket(), FrameType::ping, {});
      }
    }
  }
}

}  // namespace sublet::transport::gate
