// Bare verbs: a reliable connected queue pair set up by librdmacm, RDMA write with immediate both ways.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "benchmarks/baselines/await.hpp"
#include "benchmarks/baselines/baseline.hpp"
#include "benchmarks/baselines/exchange.hpp"
#include "runtime/transport/verbs/handle.hpp"

namespace sublet::bench {
namespace {

namespace verbs = transport::verbs;

constexpr int resolve_max_ms = 5'000;
constexpr std::size_t page_bytes = 4096;
constexpr std::uint32_t receives = 512;
constexpr std::uint32_t receives_at_once = 128;  // Posted as one list, by whoever waits anyway.
constexpr std::uint32_t sends = 256;
constexpr std::uint32_t signal_every = 64;
constexpr std::uint32_t inline_wanted = 512;
constexpr std::size_t batch = 16;

[[noreturn]] void fail(const char* what) {
  throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}
void require(bool holds, const char* what) {
  if (!holds) fail(what);
}

struct AddressOf {
  sockaddr_storage storage{};

  AddressOf(const std::string& text, std::uint16_t port) {
    auto* const four = reinterpret_cast<sockaddr_in*>(&storage);
    auto* const six = reinterpret_cast<sockaddr_in6*>(&storage);
    if (inet_pton(AF_INET, text.c_str(), &four->sin_addr) == 1) {
      four->sin_family = AF_INET;
      four->sin_port = htons(port);
    } else if (inet_pton(AF_INET6, text.c_str(), &six->sin6_addr) == 1) {
      six->sin6_family = AF_INET6;
      six->sin6_port = htons(port);
    } else {
      throw std::runtime_error("'" + text + "' is no IP address");
    }
  }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

/// What each end tells the other when they connect.
struct Remote {
  std::uint64_t base = 0;
  std::uint64_t key = 0;
};

struct PageFree {
  void operator()(std::byte* memory) const { std::free(memory); }
};

}  // namespace

/// One end: its objects, in the order of their making, and the two things that an echo does.
class VerbsEnd {
 public:
  VerbsEnd(const BaselineShape& shape, bool sleeps)
      : sleeps_(sleeps),
        stride_((shape.bytes_max + page_bytes - 1) / page_bytes * page_bytes),
        window_max_(shape.window_max),
        room_bytes_((shape.window_max + 1) * stride_),
        room_(static_cast<std::byte*>(std::aligned_alloc(page_bytes, room_bytes_))) {
    require(room_ != nullptr, "no memory for a baseline");
    std::memset(room_.get(), 0x5A, room_bytes_);
    events_.reset(rdma_create_event_channel());
    require(events_ != nullptr, "rdma_create_event_channel (is the module rdma_ucm loaded?)");
  }

  /// The peer's part: listens on a free port of `address` and tells it.
  void accept(const Control& control, const std::string& address) {
    verbs::CmId listener = make_id();
    AddressOf own(address, 0);
    require(rdma_bind_addr(listener.get(), own.get()) == 0, "rdma_bind_addr");
    require(rdma_listen(listener.get(), 1) == 0, "rdma_listen");
    say_ready(control);
    control.send(ntohs(rdma_get_src_port(listener.get())));
    id_.reset(await_event(RDMA_CM_EVENT_CONNECT_REQUEST));
    open();
    rdma_conn_param parameters = parameters_of();
    require(rdma_accept(id_.get(), &parameters) == 0, "rdma_accept");
    await_event(RDMA_CM_EVENT_ESTABLISHED);
  }

  void connect(const Control& control, const std::string& from, const std::string& to) {
    AddressOf source(from, 0);
    AddressOf target(to, control.receive<std::uint16_t>());
    id_ = make_id();
    require(rdma_resolve_addr(id_.get(), source.get(), target.get(), resolve_max_ms) == 0,
            "rdma_resolve_addr");
    await_event(RDMA_CM_EVENT_ADDR_RESOLVED);
    require(rdma_resolve_route(id_.get(), resolve_max_ms) == 0, "rdma_resolve_route");
    await_event(RDMA_CM_EVENT_ROUTE_RESOLVED);
    open();
    rdma_conn_param parameters = parameters_of();
    require(rdma_connect(id_.get(), &parameters) == 0, "rdma_connect");
    await_event(RDMA_CM_EVENT_ESTABLISHED);
  }

  [[nodiscard]] std::byte* incoming(std::uint32_t slot) noexcept { return room_.get() + slot * stride_; }
  [[nodiscard]] std::byte* outgoing() noexcept { return incoming(window_max_); }

  /// A function of its own, entered once a message: `sublet-bench anatomy` looks for it.
  [[gnu::noinline]] void write(const std::byte* data, std::size_t bytes, std::uint32_t slot) {
    ibv_sge piece{reinterpret_cast<std::uintptr_t>(data), static_cast<std::uint32_t>(bytes), memory_->lkey};
    ibv_send_wr request{};
    request.sg_list = &piece;
    request.num_sge = 1;
    request.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
    request.imm_data = slot;
    if (bytes <= inline_max_) request.send_flags = IBV_SEND_INLINE;
    if (++written_ % signal_every == 0) request.send_flags |= IBV_SEND_SIGNALED;
    request.wr.rdma.remote_addr = remote_.base + slot * stride_;
    request.wr.rdma.rkey = static_cast<std::uint32_t>(remote_.key);
    ibv_send_wr* wrong = nullptr;
    errno = ibv_post_send(id_->qp, &request, &wrong);
    require(errno == 0, "ibv_post_send");
    if (written_ % signal_every == 0) reap();
  }
  void write_last(const std::byte* data, std::size_t bytes, std::uint32_t slot, std::chrono::microseconds) {
    write(data, bytes, slot);  // What was posted leaves by itself.
  }

  /// The slot of the next write that has come.
  [[nodiscard]] std::uint32_t wait(std::chrono::microseconds hot) {
    if (arrived_ == taken_) {
      if (unposted_ >= receives_at_once) post_receives();
      await(
          hot, [&] { return arrived_ != taken_ || poll(); }, [&] { sleep(); });
    }
    return arrivals_[taken_++ % batch];
  }

 private:
  verbs::CmId make_id() {
    rdma_cm_id* made = nullptr;
    require(rdma_create_id(events_.get(), &made, nullptr, RDMA_PS_TCP) == 0, "rdma_create_id");
    return verbs::CmId(made);
  }

  /// The new connection's id, of a request. Keeps what the other end says of its memory.
  rdma_cm_id* await_event(rdma_cm_event_type wanted) {
    sleep_on(events_->fd);
    rdma_cm_event* got = nullptr;
    require(rdma_get_cm_event(events_.get(), &got) == 0, "rdma_get_cm_event");
    const verbs::CmEvent event(got);
    if (event->event != wanted) {
      throw std::runtime_error(std::string("a pair over verbs did not connect: ") +
                               rdma_event_str(event->event));
    }
    if (event->param.conn.private_data_len >= sizeof remote_)
      std::memcpy(&remote_, event->param.conn.private_data, sizeof remote_);
    return event->id;
  }

  void open() {
    ibv_context* const device = id_->verbs;
    domain_.reset(ibv_alloc_pd(device));
    require(domain_ != nullptr, "ibv_alloc_pd");
    if (sleeps_) {
      channel_.reset(ibv_create_comp_channel(device));
      require(channel_ != nullptr, "ibv_create_comp_channel");
      require(fcntl(channel_->fd, F_SETFL, O_NONBLOCK) == 0, "fcntl");
    }
    arrivals_queue_.reset(ibv_create_cq(device, receives, nullptr, channel_.get(), 0));
    sends_queue_.reset(ibv_create_cq(device, sends, nullptr, nullptr, 0));
    require(arrivals_queue_ != nullptr && sends_queue_ != nullptr, "ibv_create_cq");
    memory_.reset(ibv_reg_mr(domain_.get(), room_.get(), room_bytes_,
                             IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE));
    require(memory_ != nullptr, "ibv_reg_mr (see ulimit -l)");
    own_ = {reinterpret_cast<std::uint64_t>(room_.get()), memory_->rkey};
    make_queue_pair();
    post_receives();
  }

  void make_queue_pair() {
    for (std::uint32_t inline_bytes = inline_wanted;; inline_bytes /= 2) {
      ibv_qp_init_attr attributes{};
      attributes.send_cq = sends_queue_.get();
      attributes.recv_cq = arrivals_queue_.get();
      attributes.cap = {sends, receives, 1, 1, inline_bytes};
      attributes.qp_type = IBV_QPT_RC;
      if (rdma_create_qp(id_.get(), domain_.get(), &attributes) == 0) {
        inline_max_ = attributes.cap.max_inline_data;
        break;
      }
      require(inline_bytes > 0, "rdma_create_qp");
    }
    queue_pair_.reset(id_.get());
  }

  rdma_conn_param parameters_of() {
    rdma_conn_param parameters{};
    parameters.private_data = &own_;
    parameters.private_data_len = sizeof own_;
    parameters.retry_count = 6;
    parameters.rnr_retry_count = 6;
    return parameters;
  }

  void post_receives() {
    std::array<ibv_recv_wr, receives> list{};
    const std::uint32_t count = unposted_;
    for (std::uint32_t i = 0; i + 1 < count; ++i) list[i].next = &list[i + 1];
    ibv_recv_wr* wrong = nullptr;
    errno = ibv_post_recv(id_->qp, list.data(), &wrong);
    require(errno == 0, "ibv_post_recv");
    unposted_ = 0;
  }

  bool poll() {
    std::array<ibv_wc, batch> entries;
    const int got = ibv_poll_cq(arrivals_queue_.get(), batch, entries.data());
    if (got == 0) return false;
    require(got > 0, "ibv_poll_cq");
    for (int i = 0; i < got; ++i) {
      if (entries[i].status != IBV_WC_SUCCESS)
        throw std::runtime_error(std::string("bare verbs: ") + ibv_wc_status_str(entries[i].status));
      arrivals_[arrived_++ % batch] = entries[i].imm_data;
    }
    unposted_ += static_cast<std::uint32_t>(got);
    return true;
  }

  /// Takes the completions of our own signalled writes, of which there is room for four.
  void reap() {
    std::array<ibv_wc, sends / signal_every> entries;
    int got = 0;
    const auto some = [&] {
      got = ibv_poll_cq(sends_queue_.get(), static_cast<int>(entries.size()), entries.data());
      return got != 0;
    };
    if (++signalled_ < entries.size() - 1) {
      if (!some()) return;
    } else {
      await(std::chrono::seconds(20), some, [] {});
    }
    require(got > 0, "ibv_poll_cq");
    for (int i = 0; i < got; ++i) {
      if (entries[i].status != IBV_WC_SUCCESS)
        throw std::runtime_error(std::string("bare verbs: ") + ibv_wc_status_str(entries[i].status));
    }
    signalled_ -= static_cast<std::uint32_t>(got);
  }

  void sleep() {
    if (!sleeps_) return;
    errno = ibv_req_notify_cq(arrivals_queue_.get(), 0);
    require(errno == 0, "ibv_req_notify_cq");
    if (poll()) return;  // It came before we asked to be woken.
    sleep_on(channel_->fd);
    ibv_cq* queue = nullptr;
    void* context = nullptr;
    if (ibv_get_cq_event(channel_.get(), &queue, &context) == 0) ibv_ack_cq_events(queue, 1);
  }

  struct QueuePairOf {
    void operator()(rdma_cm_id* id) const noexcept { rdma_destroy_qp(id); }
  };

  bool sleeps_;
  std::size_t stride_;
  std::uint32_t window_max_;
  std::size_t room_bytes_;
  std::unique_ptr<std::byte, PageFree> room_;
  verbs::EventChannel events_;
  verbs::CmId id_;
  verbs::ProtectionDomain domain_;
  verbs::CompletionChannel channel_;  ///< Only of an end that sleeps.
  verbs::CompletionQueue arrivals_queue_;
  verbs::CompletionQueue sends_queue_;
  verbs::MemoryRegion memory_;
  std::unique_ptr<rdma_cm_id, QueuePairOf> queue_pair_;
  std::uint32_t inline_max_ = 0;
  Remote own_;
  Remote remote_;
  std::array<std::uint32_t, batch> arrivals_{};  ///< Slots that have come, a ring.
  std::uint32_t arrived_ = 0;
  std::uint32_t taken_ = 0;
  std::uint32_t unposted_ = receives;
  std::uint32_t written_ = 0;
  std::uint32_t signalled_ = 0;
};

namespace {

class Verbs final : public Baseline {
 public:
  Verbs(const BaselineShape& shape, VerbsAddresses addresses, bool sleeps)
      : shape_(shape),
        addresses_(std::move(addresses)),
        sleeps_(sleeps),
        peer_(shape.cores, [shape, sleeps, at = addresses_.server](const Control& control) {
          VerbsEnd end(shape, sleeps);
          end.accept(control, at);
          serve_exchange(end, control);
        }) {}

  std::string name() const override { return sleeps_ ? "bare verbs, events" : "bare verbs"; }
  void open() override {
    peer_.wait_until_ready();
    end_.emplace(shape_, sleeps_);
    end_->connect(peer_.control(), addresses_.client, addresses_.server);
  }
  std::chrono::nanoseconds run(const Plan& plan, Histogram& times) override {
    return run_exchange(*end_, peer_.control(), plan, times);
  }

 private:
  BaselineShape shape_;
  VerbsAddresses addresses_;
  bool sleeps_;
  std::optional<VerbsEnd> end_;
  Peer peer_;
};

}  // namespace

std::unique_ptr<Baseline> make_verbs(const BaselineShape& shape, const VerbsAddresses& addresses,
                                     bool sleeps) {
  return std::make_unique<Verbs>(shape, addresses, sleeps);
}

}  // namespace sublet::bench
