#include "runtime/transport/verbs/manager.hpp"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "runtime/wire/handshake.hpp"

namespace sublet::transport::verbs {
namespace {

/// The kernel looks whether a neighbour has answered when one does, and when this is over: an answer
/// that is faster than the kernel's own bookkeeping costs this long. Repeated until the caller's deadline.
constexpr int resolve_step_ms = 50;
constexpr int events_per_wait = 16;
constexpr int backlog = static_cast<int>(limits::half_open_max);
/// How long an ended connection's id stays for the peer's last answer.
constexpr std::chrono::milliseconds linger_max{1000};
constexpr std::uint8_t answer_time = 15;  ///< 134 ms, as in Endpoint: the kernel's default is seconds.
/// Why a connection manager rejects: nobody listens, or a program's own answer.
constexpr int rejected_no_listener = 8;
constexpr int rejected_by_program = 28;

void* number_to_context(std::uint64_t number) noexcept {
  // The library carries it unread. NOLINTNEXTLINE(performance-no-int-to-ptr)
  return reinterpret_cast<void*>(number);
}
std::uint64_t number_of(const rdma_cm_id& id) noexcept {
  return reinterpret_cast<std::uint64_t>(id.context);
}

std::vector<std::byte> private_data_of(const rdma_cm_event& event) {
  const auto* begin = static_cast<const std::byte*>(event.param.conn.private_data);
  if (begin == nullptr) return {};
  return {begin, begin + event.param.conn.private_data_len};
}

Error rejection_of(const rdma_cm_event& event) {
  if (event.status == rejected_by_program && event.param.conn.private_data_len >= sizeof(wire::Refusal)) {
    return wire::parse_refusal(private_data_of(event));
  }
  if (event.status == rejected_no_listener) return {Errc::unavailable, "nobody listens there"};
  return {Errc::unavailable, "the peer hung up during the handshake"};
}

}  // namespace

Manager::Manager(const Timing& timing)
    : timing_(timing), last_service_(SteadyClock::now()), next_sweep_(last_service_) {}

Manager::~Manager() {
  for (auto& [number, entry] : entries_) {
    if (entry.endpoint) entry.endpoint->set_down(Errc::closed);
  }
}

Status Manager::open() {
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return failed("epoll_create1", errno);
  EventChannel channel(::rdma_create_event_channel());
  if (!channel || !set_non_blocking(channel->fd)) return failed("rdma_create_event_channel", errno);
  channel_ = std::move(channel);
  epoll_event event{EPOLLIN, {.ptr = nullptr}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, channel_->fd, &event) != 0) return failed("epoll_ctl", errno);
  return {};
}

Status Manager::watch(std::shared_ptr<Device> device) {
  epoll_event event{EPOLLIN, {.ptr = device.get()}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, device->context()->async_fd, &event) != 0) {
    return failed("epoll_ctl", errno);
  }
  devices_.push_back(std::move(device));
  return {};
}

Result<gate::Address> Manager::listen(const gate::Address& address) {
  if (listener_) return Error(Errc::already_exists, "this transport listens already");
  rdma_cm_id* made = nullptr;
  if (::rdma_create_id(channel_.get(), &made, nullptr, RDMA_PS_TCP) != 0)
    return failed("rdma_create_id", errno);
  CmId id(made);
  gate::Address bound = address;
  if (::rdma_bind_addr(id.get(), reinterpret_cast<sockaddr*>(&bound.storage)) != 0) {
    if (errno == EADDRINUSE) return Error(Errc::already_exists, gate::to_text(address) + " is in use");
    return failed("cannot listen on " + gate::to_text(address), errno);
  }
  if (::rdma_listen(id.get(), backlog) != 0) {
    if (errno == EADDRINUSE) return Error(Errc::already_exists, gate::to_text(address) + " is in use");
    return failed("rdma_listen", errno);
  }
  std::memcpy(&bound.storage, ::rdma_get_local_addr(id.get()), bound.length);
  listener_ = std::move(id);
  return bound;
}

const char* Manager::listening_device() const noexcept {
  if (!listener_ || listener_->verbs == nullptr) return nullptr;
  return ::ibv_get_device_name(listener_->verbs->device);
}

std::vector<ConnectRequest> Manager::requests() {
  std::vector<ConnectRequest> requests;
  for (const std::uint64_t number : std::exchange(fresh_requests_, {})) {
    if (const Entry* entry = waiting(number)) requests.push_back({number, entry->private_data});
  }
  return requests;
}

Manager::Entry* Manager::waiting(std::uint64_t request) noexcept {
  const auto found = entries_.find(request);
  return found != entries_.end() && found->second.stage == Stage::waiting ? &found->second : nullptr;
}

void Manager::reject(std::uint64_t request, std::span<const std::byte> private_data) noexcept {
  Entry* const entry = waiting(request);
  if (entry == nullptr) return;
  const std::size_t bytes = std::min(private_data.size(), limits::reject_private_bytes);
  ::rdma_reject(entry->id.get(), private_data.data(), static_cast<std::uint8_t>(bytes));
  forget(request);
}

Result<std::uint64_t> Manager::start(const gate::Address& address) {
  const std::uint64_t number = next_number_++;
  rdma_cm_id* made = nullptr;
  if (::rdma_create_id(channel_.get(), &made, number_to_context(number), RDMA_PS_TCP) != 0) {
    return failed("rdma_create_id", errno);
  }
  CmId id(made);
  std::uint8_t time = answer_time;
  // Older kernels do not know it: the queue pair's own timeout counts in any case.
  (void)::rdma_set_option(made, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &time, sizeof(time));
  if (Status asked = resolve(*id, address); !asked) return asked.error();
  Entry& entry = entries_[number];
  entry.id = std::move(id);
  entry.peer = address;
  enter(entry, Stage::resolving);
  return number;
}

Status Manager::resolve(rdma_cm_id& id, gate::Address peer) {
  if (::rdma_resolve_addr(&id, nullptr, reinterpret_cast<sockaddr*>(&peer.storage), resolve_step_ms) == 0)
    return {};
  return failed("cannot find the way to " + gate::to_text(peer), errno);
}

void Manager::enter(Entry& entry, Stage stage) noexcept {
  entry.stage = stage;
  entry.since = entry.heard = entry.beaten = SteadyClock::now();
}

Status Manager::leave(std::uint64_t number, Stage stage, TimePoint deadline) {
  while (true) {
    const Entry& entry = entries_.at(number);
    if (entry.stage == Stage::ended) return entry.failure;
    if (entry.stage != stage) return {};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - SteadyClock::now());
    if (left.count() <= 0) return Error(Errc::timeout, "the peer did not answer in time");
    service(left);
  }
}

void Manager::wait_for(int event, TimePoint deadline) {
  epoll_event wanted{EPOLLIN, {.ptr = this}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, event, &wanted) != 0) return;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - SteadyClock::now());
  service(std::max(left, std::chrono::milliseconds(0)));
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, event, nullptr);
}

void Manager::on_events() {
  rdma_cm_event* next = nullptr;
  while (::rdma_get_cm_event(channel_.get(), &next) == 0) {
    const CmEvent event(next);
    on_event(*event);
  }
}

void Manager::on_event(const rdma_cm_event& event) {
  if (event.event == RDMA_CM_EVENT_CONNECT_REQUEST) return on_request(event);
  const auto found = entries_.find(number_of(*event.id));
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  switch (event.event) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
      if (::rdma_resolve_route(event.id, static_cast<int>(timing_.handshake_max.count())) == 0) return;
      entry.failure = failed("rdma_resolve_route", errno);
      return enter(entry, Stage::ended);
    case RDMA_CM_EVENT_ADDR_ERROR:
      if (event.status != -ETIMEDOUT || !resolve(*event.id, entry.peer)) return on_end(entry, event);
      return;
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
      return enter(entry, Stage::resolved);
    case RDMA_CM_EVENT_CONNECT_RESPONSE:
      if (entry.stage != Stage::asking) return;
      entry.private_data = private_data_of(event);
      return enter(entry, Stage::answered);
    case RDMA_CM_EVENT_ESTABLISHED:
      if (entry.stage == Stage::accepting) enter(entry, Stage::confirmed);
      return;
    case RDMA_CM_EVENT_ADDR_CHANGE:
    case RDMA_CM_EVENT_TIMEWAIT_EXIT:
      return;  // A bond that moved to another port: the queue pair's retries tell whether it still works.
    default:
      return on_end(entry, event);
  }
}

void Manager::on_request(const rdma_cm_event& event) {
  const std::uint64_t number = next_number_++;
  CmId id(event.id);  // Let go without an answer: the peer is rejected.
  const auto waiting_now =
      std::ranges::count_if(entries_, [](const auto& item) { return item.second.stage == Stage::waiting; });
  if (static_cast<std::size_t>(waiting_now) >= limits::half_open_max) return;
  event.id->context = number_to_context(number);
  Entry& entry = entries_[number];
  entry.id = std::move(id);
  entry.private_data = private_data_of(event);
  entry.private_data.resize(std::min(entry.private_data.size(), limits::connect_private_bytes));
  enter(entry, Stage::waiting);
  fresh_requests_.push_back(number);
}

/// Errors, rejections, a peer that left, a device that went.
void Manager::on_end(Entry& entry, const rdma_cm_event& event) {
  switch (entry.stage) {
    case Stage::live:
    case Stage::confirmed:
      entry.endpoint->set_down(entry.endpoint->peer_said_bye() ? Errc::closed : Errc::peer_lost);
      return;
    case Stage::ended:
      return;
    default:
      break;
  }
  if (event.event == RDMA_CM_EVENT_REJECTED) {
    entry.failure = rejection_of(event);
  } else {
    entry.failure = Error(Errc::unavailable, std::string(::rdma_event_str(event.event)) + ": " +
                                                 std::strerror(std::abs(event.status)));
  }
  enter(entry, Stage::ended);
}

void Manager::on_device_events(Device& device) {
  ibv_async_event event{};
  while (::ibv_get_async_event(device.context(), &event) == 0) {
    for (auto& [number, entry] : entries_) {
      if (entry.stage != Stage::live || &entry.endpoint->device() != &device) continue;
      switch (event.event_type) {
        case IBV_EVENT_QP_FATAL:
        case IBV_EVENT_QP_REQ_ERR:
        case IBV_EVENT_QP_ACCESS_ERR:
          if (entry.endpoint->queue_pair_number() == event.element.qp->qp_num)
            entry.endpoint->set_down(Errc::peer_lost);
          break;
        case IBV_EVENT_CQ_ERR:  // Whose is not worth knowing: an overrun would be our own bug.
        case IBV_EVENT_DEVICE_FATAL:
          entry.endpoint->set_down(Errc::peer_lost);
          break;
        default:
          break;  // A port that went may come again: retries and heartbeats judge.
      }
    }
    ::ibv_ack_async_event(&event);
  }
}

void Manager::service(std::chrono::milliseconds wait_max) {
  const auto pause = std::min(wait_max, timing_.heartbeat_interval / 4);
  std::array<epoll_event, events_per_wait> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(),
                                 static_cast<int>(std::max<std::int64_t>(pause.count(), 0)));
  const TimePoint now = SteadyClock::now();
  if (now - last_service_ > timing_.peer_silent_max / 2) {
    // We were away ourselves, stopped for one: the peers get their time again.
    for (auto& [number, entry] : entries_) entry.heard = now;
  }
  last_service_ = now;
  for (int i = 0; i < count; ++i) {
    void* const source = events[static_cast<std::size_t>(i)].data.ptr;
    if (source == this) continue;  // wait_for() looks itself.
    if (source == nullptr) {
      on_events();
    } else {
      on_device_events(*static_cast<Device*>(source));
    }
  }
  if (now >= next_sweep_) {
    next_sweep_ = now + timing_.heartbeat_interval / 4;
    sweep(now);
  }
}

void Manager::sweep(TimePoint now) {
  for (auto next = entries_.begin(); next != entries_.end();) {
    next = sweep_entry(next->second, now) ? std::next(next) : entries_.erase(next);
  }
}

bool Manager::sweep_entry(Entry& entry, TimePoint now) {
  switch (entry.stage) {
    case Stage::waiting:
      return now - entry.since <= limits::accept_max;
    case Stage::live:
      return lives(entry, now);
    default:
      return true;  // Somebody waits for it, and forgets it.
  }
}

bool Manager::lives(Entry& entry, TimePoint now) const noexcept {
  Endpoint& endpoint = *entry.endpoint;
  if (endpoint.is_shut()) return now - entry.since <= linger_max;
  entry.since = now;
  const std::uint64_t beat = endpoint.peer_beat();
  if (beat != entry.beat) {
    entry.beat = beat;
    entry.heard = now;
  }
  if (endpoint.peer_said_bye()) {
    endpoint.set_down(Errc::closed);
  } else if (endpoint.broken() || now - entry.heard > timing_.peer_silent_max) {
    endpoint.set_down(Errc::peer_lost);
  } else if (now - entry.beaten >= timing_.heartbeat_interval) {
    entry.beaten = now;
    endpoint.beat();
  }
  return true;
}

}  // namespace sublet::transport::verbs
