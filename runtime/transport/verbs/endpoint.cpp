#include "runtime/transport/verbs/endpoint.hpp"

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "runtime/base/clock.hpp"

namespace sublet::transport::verbs {
namespace {

// Nothing waits on a default: an answer is due after 4.096 us * 2^15 = 134 ms (the device may take some
// times that), and six tries fail in a second or two. Seven would mean for ever with some devices.
constexpr std::uint8_t answer_time = 15;
constexpr std::uint8_t retries = 6;
/// A writer never has more under way than the peer has posted receives, so these hardly matter: 0.64 ms.
constexpr std::uint8_t receiver_not_ready_time = 12;
constexpr std::uint8_t receiver_not_ready_retries = 6;
constexpr std::uint32_t beats_in_flight_max = 8;
constexpr std::size_t receive_batch = 64;
constexpr int reap_batch = 16;
constexpr unsigned events_per_acknowledgement = 64;

/// A chain of receives without memory: a write with immediate data takes only the entry.
struct ReceiveChain {
  ReceiveChain() noexcept {
    for (std::size_t i = 0; i + 1 < requests.size(); ++i) requests[i].next = &requests[i + 1];
  }
  std::array<ibv_recv_wr, receive_batch> requests{};
};

std::uint64_t load(const std::uint64_t& shared) noexcept {
  return std::atomic_ref<std::uint64_t>(const_cast<std::uint64_t&>(shared)).load(std::memory_order_acquire);
}

}  // namespace

/// Beside the owner: shut() waits for visitors, who stay for one posting.
class Endpoint::Visit {
 public:
  explicit Visit(Endpoint& endpoint) noexcept : endpoint_(endpoint) {
    endpoint_.visitors_.fetch_add(1, std::memory_order_seq_cst);
    open_ = endpoint_.open_.load(std::memory_order_seq_cst);
  }
  ~Visit() { endpoint_.visitors_.fetch_sub(1, std::memory_order_release); }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;
  explicit operator bool() const noexcept { return open_; }

 private:
  Endpoint& endpoint_;
  bool open_ = false;
};

Result<std::shared_ptr<Endpoint>> Endpoint::make(std::shared_ptr<Device> device,
                                                 std::shared_ptr<rdma_event_channel> channel, CmId id) {
  std::shared_ptr<Endpoint> made(new Endpoint(std::move(device), std::move(channel), std::move(id)));
  Result<memory::Region> memory = memory::Region::create(sizeof(ControlBlock), "sublet-control");
  if (!memory) return memory.error();
  made->memory_ = std::move(*memory);
  new (made->memory_.data()) ControlBlock;
  Result<MemoryRegion> registered =
      made->device_->register_memory(made->memory_.data(), made->memory_.size());
  if (!registered) return registered.error();
  made->control_region_ = std::move(*registered);
  made->control().out.introduction = {};
  if (Status queues = made->make_queues(); !queues) return queues.error();
  return made;
}

Status Endpoint::make_queues() {
  ibv_context* const context = device_->context();
  const QueueSizes& sizes = device_->sizes();
  completion_channel_.reset(::ibv_create_comp_channel(context));
  if (!completion_channel_ || !set_non_blocking(completion_channel_->fd)) {
    return failed("ibv_create_comp_channel", errno);
  }
  sends_.reset(::ibv_create_cq(context, static_cast<int>(sizes.writes + sizes.beside), nullptr,
                               completion_channel_.get(), 0));
  if (!sends_) return failed("ibv_create_cq", errno);
  arrivals_.reset(
      ::ibv_create_cq(context, static_cast<int>(sizes.receives), nullptr, completion_channel_.get(), 0));
  if (!arrivals_) return failed("ibv_create_cq", errno);
  inline_bytes_ = device_->inline_bytes();
  queue_pair_ = device_->make_queue_pair(sends_.get(), arrivals_.get(), inline_bytes_);
  if (!queue_pair_) return failed("ibv_create_qp", errno);
  number_ = queue_pair_->qp_num;
  wake_.reset(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  watch_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!wake_.valid() || !watch_.valid()) return failed("eventfd, epoll_create1", errno);
  for (const int each : {wake_.get(), completion_channel_->fd}) {
    epoll_event event{EPOLLIN, {.fd = each}};
    if (::epoll_ctl(watch_.get(), EPOLL_CTL_ADD, each, &event) != 0) return failed("epoll_ctl", errno);
  }
  return {};
}

Endpoint::~Endpoint() {
  shut();
  // A queue waits for the acknowledgement of its events before it goes.
  if (arrivals_events_ > 0) ::ibv_ack_cq_events(arrivals_.get(), arrivals_events_);
  if (sends_events_ > 0) ::ibv_ack_cq_events(sends_.get(), sends_events_);
}

Status Endpoint::to_state(ibv_qp_state state) noexcept {
  ibv_qp_attr attributes{};
  int mask = 0;
  attributes.qp_state = state;
  if (::rdma_init_qp_attr(id_.get(), &attributes, &mask) != 0) return failed("rdma_init_qp_attr", errno);
  if (state == IBV_QPS_INIT) attributes.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
  if (state == IBV_QPS_RTR) attributes.min_rnr_timer = receiver_not_ready_time;
  if (state == IBV_QPS_RTS) {
    attributes.timeout = answer_time;
    attributes.retry_cnt = retries;
    attributes.rnr_retry = receiver_not_ready_retries;
  }
  const int error = ::ibv_modify_qp(queue_pair_.get(), &attributes, mask);
  if (error != 0) return failed("ibv_modify_qp", error);
  if (state == IBV_QPS_INIT) {
    for (std::uint32_t left = device_->sizes().receives; left > 0;) {
      const std::uint32_t some = std::min<std::uint32_t>(left, receive_batch);
      post_receives(some);
      left -= some;
    }
  }
  return {};
}

Introduction Endpoint::introduction() const noexcept {
  Introduction own;
  own.control_base = reinterpret_cast<std::uint64_t>(&control().in);
  own.control_key = control_region_->rkey;
  own.receives = device_->sizes().receives;
  for (const Device::Registered& item : device_->registered()) {
    own.keys[own.regions] = item.key;
    own.device_keys[own.regions++] = item.handle->rkey;
  }
  return own;
}

bool Endpoint::meet(const Introduction& peer) noexcept {
  if (peer.magic != Introduction::magic_value || peer.regions > regions_max || peer.receives == 0)
    return false;
  peer_ = peer;
  return true;
}

Status Endpoint::greet() noexcept {
  Introduction& own = control().out.introduction;
  own = introduction();
  if (post_control(&own, sizeof(own), {1}, IBV_SEND_SIGNALED, IBV_WR_RDMA_WRITE_WITH_IMM)) return {};
  return Error(Errc::unavailable, "the queue pair took no greeting");
}

Status Endpoint::hear_greeting() noexcept {
  ibv_wc completion{};
  const int count = ::ibv_poll_cq(arrivals_.get(), 1, &completion);
  if (count == 0) return Errc::queue_full;
  const Introduction heard = control().in.introduction;  // A copy: the peer could change it.
  if (count < 0 || completion.status != IBV_WC_SUCCESS || completion.opcode != IBV_WC_RECV_RDMA_WITH_IMM ||
      completion.byte_len != sizeof(heard) || !meet(heard)) {
    return Error(Errc::protocol_error, "the peer's first write is no greeting");
  }
  return {};
}

std::uint64_t Endpoint::granted() const noexcept {
  return std::max<std::uint64_t>(peer_.receives, load(control().in.granted));
}

std::uint64_t Endpoint::peer_beat() const noexcept {
  return load(control().in.beat) + arrivals_seen_.load(std::memory_order_relaxed);
}

bool Endpoint::peer_said_bye() const noexcept {
  return load(farewell().kind) == Farewell::bye;
}

bool Endpoint::post_control(const void* part, std::size_t bytes, WorkId work, int flags,
                            ibv_wr_opcode opcode) noexcept {
  const auto place = static_cast<std::uint64_t>(static_cast<const std::byte*>(part) -
                                                reinterpret_cast<const std::byte*>(&control().out));
  ibv_sge piece{reinterpret_cast<std::uint64_t>(part), static_cast<std::uint32_t>(bytes),
                control_region_->lkey};
  ibv_send_wr request{};
  request.wr_id = work.pack();
  request.sg_list = &piece;
  request.num_sge = 1;
  request.opcode = opcode;
  request.send_flags =
      static_cast<unsigned>(flags) | (bytes <= inline_bytes_ ? unsigned{IBV_SEND_INLINE} : 0U);
  request.wr.rdma.remote_addr = peer_.control_base + place;
  request.wr.rdma.rkey = peer_.control_key;
  ibv_send_wr* refused = nullptr;
  return ::ibv_post_send(queue_pair_.get(), &request, &refused) == 0;
}

bool Endpoint::tell_granted(std::uint64_t arrivals, std::uint64_t number) noexcept {
  std::uint64_t& own = control().out.granted;
  std::atomic_ref(own).store(arrivals, std::memory_order_release);
  set_posting(true);
  const bool posted = post_control(&own, sizeof(own), {number}, IBV_SEND_SIGNALED);
  set_posting(false);
  return posted;
}

bool Endpoint::say_bye(std::uint64_t announced, std::uint64_t number) noexcept {
  Farewell& own = control().out.farewell;
  own.announced = announced;
  own.kind = Farewell::bye;
  set_posting(true);
  const bool posted = post_control(&own.announced, sizeof(own) - bye_offset, {number}, IBV_SEND_SIGNALED);
  set_posting(false);
  return posted;
}

void Endpoint::post_receives(std::uint32_t count) noexcept {
  static ReceiveChain chain;
  ibv_recv_wr* refused = nullptr;
  ibv_recv_wr* const first = &chain.requests[receive_batch - count];
  if (::ibv_post_recv(queue_pair_.get(), first, &refused) != 0)
    broken_.store(true, std::memory_order_release);
}

void Endpoint::reap() noexcept {
  if (reaping_.test_and_set(std::memory_order_acquire)) return;
  std::array<ibv_wc, reap_batch> batch;
  int count = 0;
  do {
    count = ::ibv_poll_cq(sends_.get(), reap_batch, batch.data());
    if (count < 0) broken_.store(true, std::memory_order_release);
    for (int i = 0; i < count; ++i) {
      const ibv_wc& completion = batch[static_cast<std::size_t>(i)];
      const WorkId work = WorkId::unpack(completion.wr_id);
      if (completion.status != IBV_WC_SUCCESS) {
        broken_.store(true, std::memory_order_release);
      } else if (work.is_beat()) {
        beats_completed_.fetch_add(1, std::memory_order_relaxed);
      } else {
        completed_.store(work.number, std::memory_order_release);
      }
    }
  } while (count == reap_batch);
  reaping_.clear(std::memory_order_release);
}

void Endpoint::arm(bool sends_too) noexcept {
  while (armed_ || sends_armed_) {
    ibv_cq* queue = nullptr;
    void* unused = nullptr;
    if (::ibv_get_cq_event(completion_channel_.get(), &queue, &unused) != 0) break;
    const bool is_arrival = queue == arrivals_.get();
    (is_arrival ? armed_ : sends_armed_) = false;
    unsigned& events = is_arrival ? arrivals_events_ : sends_events_;
    if (++events == events_per_acknowledgement) ::ibv_ack_cq_events(queue, std::exchange(events, 0));
  }
  if (!armed_) armed_ = ::ibv_req_notify_cq(arrivals_.get(), 0) == 0;
  if (sends_too && !sends_armed_) sends_armed_ = ::ibv_req_notify_cq(sends_.get(), 0) == 0;
}

void Endpoint::shut() noexcept {
  if (!queue_pair_) return;
  open_.store(false, std::memory_order_seq_cst);
  while (visitors_.load(std::memory_order_seq_cst) != 0) cpu_relax();  // One posting long.
  if (id_) ::rdma_disconnect(id_.get());
  queue_pair_.reset();
  control_region_.reset();
  shut_.store(true, std::memory_order_release);
}

void Endpoint::say_last_words(std::span<const std::byte> message) noexcept {
  // Interrupted inside a posting, another would wait for a lock that this thread holds: better no words.
  // Otherwise ibv_post_send is safe in a handler: it takes that lock, fills an entry of memory that is
  // there already and rings the device, by a store or by write(2).
  if (posting_.load(std::memory_order_relaxed) || said_last_words_.exchange(true)) return;
  const Visit visit(*this);
  if (!visit) return;
  Farewell& own = control().out.farewell;
  own.text_bytes = std::min(message.size(), last_words_max);
  std::copy_n(message.begin(), own.text_bytes, own.text.begin());
  own.announced = announced_.load(std::memory_order_relaxed);
  own.kind = Farewell::last_words;
  (void)post_control(&own, sizeof(own), {}, 0);
}

void Endpoint::set_down(Errc cause) noexcept {
  if (cause_.load(std::memory_order_relaxed) != 0) return;
  cause_.store(static_cast<std::uint32_t>(cause), std::memory_order_seq_cst);
  const std::uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof(one)) < 0) {
    // EAGAIN alone is possible: the event is already pending.
  }
}

void Endpoint::beat() noexcept {
  const Visit visit(*this);
  if (!visit) return;
  reap();
  if (beats_posted_ - beats_completed_.load(std::memory_order_relaxed) >= beats_in_flight_max) return;
  std::uint64_t& own = control().out.beat;
  ++own;
  if (post_control(&own, sizeof(own), {}, IBV_SEND_SIGNALED)) ++beats_posted_;
}

}  // namespace sublet::transport::verbs
