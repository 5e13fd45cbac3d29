// What only verbs has: strangers that use the connection manager as they like, and a cable to pull.
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "runtime/transport/gate/gate.hpp"
#include "runtime/transport/verbs/handle.hpp"
#include "runtime/transport/verbs/protocol.hpp"
#include "runtime/wire/handshake.hpp"
#include "tests/conformance/harness.hpp"

using namespace conformance;

namespace {

const std::string backend = "verbs";

bool no_device() {
  const std::vector<std::string> all = plain_backends();
  if (std::ranges::find(all, backend) != all.end()) return false;
  WARN("SKIP: there is no RDMA device with an active port; scripts/rdma-vm makes two");
  return true;
}

/// Private data that the suite's peer takes for a region and accepts.
constexpr RemoteRegion nowhere{0, 1, 4096};

/// A foreign client of the connection manager, which keeps no rule of ours.
class Stranger {
 public:
  Stranger() : channel_(::rdma_create_event_channel()) { REQUIRE(channel_ != nullptr); }
  /// @param with_queue_pair Then the library finishes the handshake by itself.
  void ask(const std::string& address, std::span<const std::byte> private_data, bool with_queue_pair) {
    rdma_cm_id* id = nullptr;
    REQUIRE(::rdma_create_id(channel_.get(), &id, nullptr, RDMA_PS_TCP) == 0);
    id_.reset(id);
    gate::Address peer = gate::parse_inet(address).value();
    for (int tries = 0; tries < 20; ++tries) {
      REQUIRE(::rdma_resolve_addr(id, nullptr, reinterpret_cast<sockaddr*>(&peer.storage), 200) == 0);
      if (next() == RDMA_CM_EVENT_ADDR_RESOLVED) break;
    }
    REQUIRE(::rdma_resolve_route(id, 2000) == 0);
    REQUIRE(next() == RDMA_CM_EVENT_ROUTE_RESOLVED);
    if (with_queue_pair) {
      ibv_qp_init_attr wanted{};
      wanted.cap = {
          .max_send_wr = 8, .max_recv_wr = 8, .max_send_sge = 1, .max_recv_sge = 1, .max_inline_data = 128};
      wanted.qp_type = IBV_QPT_RC;
      REQUIRE(::rdma_create_qp(id, nullptr, &wanted) == 0);
    }
    rdma_conn_param parameters{};
    parameters.private_data = private_data.data();
    parameters.private_data_len = static_cast<std::uint8_t>(private_data.size());
    parameters.retry_count = parameters.rnr_retry_count = 6;
    static std::uint32_t number = 4711;
    parameters.qp_num =
        ++number;  // No queue pair's; two with one number would be one stranger. Ignored when there is one.
    REQUIRE(::rdma_connect(id, &parameters) == 0);
  }
  ~Stranger() {
    if (id_ && id_->qp != nullptr) ::rdma_destroy_qp(id_.get());
  }
  Stranger(const Stranger&) = delete;
  Stranger& operator=(const Stranger&) = delete;

  /// The next event; -1 when none comes within the limit.
  int next(std::chrono::milliseconds limit = 5s) {
    pollfd event{channel_->fd, POLLIN, 0};
    if (::poll(&event, 1, static_cast<int>(limit.count())) != 1) return -1;
    rdma_cm_event* raw = nullptr;
    if (::rdma_get_cm_event(channel_.get(), &raw) != 0) return -1;
    const verbs::CmEvent got(raw);
    const auto* begin = static_cast<const std::byte*>(got->param.conn.private_data);
    if (begin != nullptr) answer_.assign(begin, begin + got->param.conn.private_data_len);
    return got->event;
  }
  [[nodiscard]] std::span<const std::byte> answer() const { return answer_; }

  /// Asks the suite's peer and is let in.
  /// @return What the peer says of the region that it lets others write.
  RemoteRegion enter(const std::string& address) {
    ask(address, wire::bytes_of(nowhere), true);
    REQUIRE(next() == RDMA_CM_EVENT_ESTABLISHED);
    greet({});
    const auto peer = wire::read_as<verbs::Introduction>(answer_);
    const auto region = wire::read_as<RemoteRegion>(std::span(answer_).subspan(sizeof(*peer)));
    REQUIRE(region.has_value());
    REQUIRE(peer->regions == 1);
    REQUIRE(completion() == IBV_WC_SUCCESS);
    return {.base = region->base, .key = peer->device_keys[0], .bytes = region->bytes};
  }
  /// Writes eight bytes to the begin of a region, by the device's own name for it.
  ibv_wc_status poke(const RemoteRegion& region) {
    std::uint64_t word = 42;
    ibv_sge piece{reinterpret_cast<std::uint64_t>(&word), sizeof(word), 0};
    ibv_send_wr request{};
    request.sg_list = &piece;
    request.num_sge = 1;
    request.opcode = IBV_WR_RDMA_WRITE;
    request.send_flags = IBV_SEND_INLINE | IBV_SEND_SIGNALED;
    request.wr.rdma.remote_addr = region.base;
    request.wr.rdma.rkey = static_cast<std::uint32_t>(region.key);
    ibv_send_wr* refused = nullptr;
    REQUIRE(::ibv_post_send(id_->qp, &request, &refused) == 0);
    return completion();
  }

  /// Writes bytes to where the acceptor's introduction says that ours belongs.
  void greet(const verbs::Introduction& own) {
    const auto peer = wire::read_as<verbs::Introduction>(answer_);
    REQUIRE(peer.has_value());
    ibv_sge piece{reinterpret_cast<std::uint64_t>(&own), sizeof(own), 0};
    ibv_send_wr request{};
    request.sg_list = &piece;
    request.num_sge = 1;
    request.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
    request.send_flags = IBV_SEND_INLINE | IBV_SEND_SIGNALED;
    request.wr.rdma.remote_addr = peer->control_base + offsetof(verbs::ControlBlock::Half, introduction);
    request.wr.rdma.rkey = peer->control_key;
    ibv_send_wr* refused = nullptr;
    REQUIRE(::ibv_post_send(id_->qp, &request, &refused) == 0);
  }

 private:
  ibv_wc_status completion() {
    ibv_wc done{};
    const TimePoint deadline = SteadyClock::now() + patience;
    while (::ibv_poll_cq(id_->send_cq, 1, &done) == 0) REQUIRE(SteadyClock::now() < deadline);
    return done.status;
  }

  verbs::EventChannel channel_;
  verbs::CmId id_;
  std::vector<std::byte> answer_;
};

/// Listens and connects elsewhere than the suite does while it lives.
class OwnAddress {
 public:
  explicit OwnAddress(const char* address) : usual_(own_host(backend)) { set(address); }
  ~OwnAddress() { set(usual_.c_str()); }
  OwnAddress(const OwnAddress&) = delete;
  OwnAddress& operator=(const OwnAddress&) = delete;

 private:
  static void set(const char* address) { ::setenv("SUBLET_TEST_RDMA_ADDRESS", address, 1); }
  std::string usual_;
};

/// Becomes a process that may lock so much memory, whoever runs it.
bool limit_locked_memory(rlim_t bytes) {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
  const rlimit limit{bytes, bytes};
  return ::setrlimit(RLIMIT_MEMLOCK, &limit) == 0 && ::syscall(SYS_capset, &header, none.data()) == 0;
}

void echoes(Side& side, const std::string& address) {
  side.connect(address);
  side.write(0, 8, pack(Kind::echo, 0, 1));
  REQUIRE(side.wait().size() == 1);
}

}  // namespace

TEST_CASE("verbs: a stranger that stops in the middle of its set-up keeps nobody out") {
  if (no_device()) return;
  const PeerProcess peer(backend, "quick");
  const bool confirms = GENERATE(false, true);
  Stranger stranger;
  stranger.ask(peer.address(), wire::bytes_of(nowhere), confirms);
  // Accepted, it says nothing more: no confirmation, or no greeting.
  REQUIRE(stranger.next() == (confirms ? RDMA_CM_EVENT_ESTABLISHED : RDMA_CM_EVENT_CONNECT_RESPONSE));
  Side side(backend, quick);
  echoes(side, peer.address());
  if (confirms) REQUIRE(stranger.next() == RDMA_CM_EVENT_DISCONNECTED);
}

TEST_CASE("verbs: a greeting that is none of ours is the end of its connection alone") {
  if (no_device()) return;
  const PeerProcess peer(backend);
  Stranger stranger;
  stranger.ask(peer.address(), wire::bytes_of(nowhere), true);
  REQUIRE(stranger.next() == RDMA_CM_EVENT_ESTABLISHED);
  verbs::Introduction own;
  SECTION("a foreign magic") {
    own.magic = 0x12345678;
  }
  SECTION("more regions than there may be") {
    own.regions = 60'000;
  }
  SECTION("no receives") {
    own.receives = 0;
  }
  stranger.greet(own);
  REQUIRE(stranger.next() == RDMA_CM_EVENT_DISCONNECTED);
  Side side(backend);
  echoes(side, peer.address());
}

TEST_CASE("verbs: a crowd that asks at once is limited, and refused rather than left waiting") {
  if (no_device()) return;
  const Side listening(backend);
  const std::string address = listening.transport->listen(fresh_address(backend)).value();
  std::vector<std::unique_ptr<Stranger>> crowd;
  std::size_t waiting = 0;
  for (std::size_t i = 0; i < limits::half_open_max + 8; ++i) {
    crowd.push_back(std::make_unique<Stranger>());
    crowd.back()->ask(address, {}, false);
    const TimePoint until = SteadyClock::now() + 200ms;
    std::size_t came = 0;
    while (came == 0 && SteadyClock::now() < until) {
      listening.transport->service(10ms);
      came = listening.transport->requests().size();
    }
    waiting += came;
  }
  REQUIRE(waiting == limits::half_open_max);
  REQUIRE(crowd.back()->next() == RDMA_CM_EVENT_REJECTED);
}

TEST_CASE("verbs: an acceptance or a rejection that is none of ours is a typed error") {
  if (no_device()) return;
  const bool accepts = GENERATE(true, false);
  const verbs::EventChannel channel(::rdma_create_event_channel());
  rdma_cm_id* made = nullptr;
  REQUIRE(::rdma_create_id(channel.get(), &made, nullptr, RDMA_PS_TCP) == 0);
  const verbs::CmId listener(made);
  gate::Address local = gate::parse_inet(fresh_address(backend)).value();
  REQUIRE(::rdma_bind_addr(made, reinterpret_cast<sockaddr*>(&local.storage)) == 0);
  REQUIRE(::rdma_listen(made, 1) == 0);
  const std::string address = address_of(own_host(backend), std::to_string(ntohs(::rdma_get_src_port(made))));
  const Side side(backend);
  const std::uint64_t attempt =
      side.transport->start_connect(address, wire::bytes_of(side.own), patience).value();
  std::optional<Result<Transport::Connected>> outcome;
  verbs::CmId visitor;
  const TimePoint deadline = SteadyClock::now() + patience;
  while (!(outcome = side.transport->take_connected(attempt)) && SteadyClock::now() < deadline) {
    side.transport->service(10ms);
    pollfd event{channel->fd, POLLIN, 0};
    if (visitor || ::poll(&event, 1, 0) != 1) continue;
    rdma_cm_event* raw = nullptr;
    REQUIRE(::rdma_get_cm_event(channel.get(), &raw) == 0);
    const verbs::CmEvent got(raw);
    REQUIRE(got->event == RDMA_CM_EVENT_CONNECT_REQUEST);
    visitor.reset(got->id);
    const std::array<char, 148> nonsense{"HTTP/1.1 400 Bad Request"};
    rdma_conn_param parameters{};
    parameters.private_data = nonsense.data();
    parameters.private_data_len = nonsense.size();
    parameters.qp_num = 4711;
    REQUIRE((accepts ? ::rdma_accept(got->id, &parameters)
                     : ::rdma_reject(got->id, nonsense.data(), nonsense.size())) == 0);
  }
  REQUIRE(outcome.has_value());
  REQUIRE(outcome->error().code() == Errc::protocol_error);
}

TEST_CASE("verbs: an IPv6 address serves as an IPv4 one does") {
  if (no_device()) return;
  const char* address = std::getenv("SUBLET_TEST_RDMA_ADDRESS6");
  if (address == nullptr) {
    WARN("SKIP: SUBLET_TEST_RDMA_ADDRESS6 names no IPv6 address of a device");
    return;
  }
  const OwnAddress there(address);
  const PeerProcess peer(backend);
  REQUIRE(peer.address().starts_with('['));
  Side side(backend);
  echoes(side, peer.address());
}

TEST_CASE("verbs: nobody listens where no device is") {
  if (no_device()) return;
  for (const char* address : {"127.0.0.1:0", "[::1]:0"}) {
    const Result<std::string> listening = transport::open(backend).value()->listen(address);
    REQUIRE_FALSE(listening.ok());
    REQUIRE(listening.error().code() == Errc::unavailable);
    REQUIRE_THAT(listening.error().detail(), Catch::Contains("leads to no RDMA device"));
  }
}

TEST_CASE("verbs: a key opens nothing once the process that told it has ended, nor does it at another") {
  if (no_device()) return;
  RemoteRegion old;
  {
    const PeerProcess peer(backend);
    Stranger holder;
    old = holder.enter(peer.address());
    REQUIRE(holder.poke(old) == IBV_WC_SUCCESS);
    const PeerProcess other(backend);
    Stranger visitor;
    const RemoteRegion own = visitor.enter(other.address());
    REQUIRE(visitor.poke(own) == IBV_WC_SUCCESS);
    REQUIRE(visitor.poke({.base = own.base, .key = old.key, .bytes = own.bytes}) == IBV_WC_REM_ACCESS_ERR);
    peer.signal(SIGKILL);
    REQUIRE(holder.next() == RDMA_CM_EVENT_DISCONNECTED);
    REQUIRE(holder.poke(old) != IBV_WC_SUCCESS);
  }
  const PeerProcess next(backend);
  Stranger holder;
  const RemoteRegion own = holder.enter(next.address());
  REQUIRE(holder.poke({.base = own.base, .key = old.key, .bytes = own.bytes}) == IBV_WC_REM_ACCESS_ERR);
}

TEST_CASE("verbs: memory beyond what may be locked is refused with the limit to raise") {
  if (no_device()) return;
  const std::string address = fresh_address(backend);
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  const FileDescriptor from_child(ends[0]);
  FileDescriptor to_parent(ends[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    std::string said = "the limit could not be set";
    if (limit_locked_memory(rlim_t{1} << 20)) {
      const memory::Region region = memory::Region::create(std::size_t{8} << 20, "test").value();
      Result<std::unique_ptr<Transport>> opened = transport::open(backend);
      Status done = opened ? Status() : Status(opened.error());
      if (done) done = (*opened)->register_region(region).ok() ? Status() : Status(Errc::out_of_memory);
      if (done) {
        const Result<std::string> listening = (*opened)->listen(address);
        done = listening ? Status() : Status(listening.error());
      }
      said = done ? "it was registered" : done.error().message();
    }
    ::_exit(::write(to_parent.get(), said.data(), said.size()) < 0);
  }
  to_parent.reset();
  std::array<char, 1024> text{};
  REQUIRE(::read(from_child.get(), text.data(), text.size() - 1) > 0);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  REQUIRE_THAT(std::string(text.data()),
               Catch::Contains("may lock 1024 KiB") && Catch::Contains("ulimit -l"));
}

TEST_CASE("verbs: what is no memory of a GPU is refused, with the way to go where no device reaches any") {
  if (no_device()) return;
  const auto opened = transport::open(backend).value();
  const Result<RemoteRegion> registered =
      opened->register_device_memory({.dmabuf = -1, .offset = 0, .address = 4096, .bytes = 4096});
  if (opened->capabilities().device_memory) {
    // Which device is used, and registers, is known with the address.
    REQUIRE_FALSE((registered.ok() && opened->listen(fresh_address(backend)).ok()));
  } else {
    REQUIRE(registered.error().code() == Errc::unavailable);
    REQUIRE_THAT(registered.error().detail(), Catch::Contains("copy through a registered region"));
  }
}

TEST_CASE("verbs: a peer is heard by what it writes, behind which its heartbeats may wait") {
  if (no_device()) return;
  Side reader(backend, quick);
  Side writer(backend);
  const std::string address = reader.transport->listen(fresh_address(backend)).value();
  std::optional<Result<Transport::Connected>> connected;
  std::jthread connecting([&] { connected = writer.try_connect(address); });
  const TimePoint deadline = SteadyClock::now() + patience;
  while (!reader.connection && SteadyClock::now() < deadline) {
    reader.transport->service(10ms);
    for (const ConnectRequest& request : reader.transport->requests())
      reader.connection = reader.transport->accept(request.id, wire::bytes_of(reader.own)).value();
  }
  connecting.join();
  writer.connection = std::move(*connected).value().connection;
  REQUIRE(reader.connection);
  writer.remote = reader.own;
  // From here on nobody serves the writer: no heartbeat goes out.
  const TimePoint end = SteadyClock::now() + 2 * quick.peer_silent_max;
  while (SteadyClock::now() < end) {
    REQUIRE(writer.connection->write({}, writer.remote, 0, pack(Kind::echo, 0, 1), {}).ok());
    REQUIRE(reader.wait().front().kind == Completion::Kind::arrival);
    REQUIRE(reader.wait(quick.heartbeat_interval).empty());
  }
  REQUIRE(reader.wait_down(limits::peer_lost_max).error == Errc::peer_lost);
}

TEST_CASE("verbs: a cable that is pulled is told within the bound") {
  if (no_device()) return;
  const char* cable = std::getenv("SUBLET_TEST_RDMA_CABLE");
  if (cable == nullptr) {
    WARN("SKIP: SUBLET_TEST_RDMA_CABLE names no interface between two devices that may be taken down");
    return;
  }
  const auto set = [&](const char* state) {
    return std::system(("ip link set " + std::string(cable) + " " + state).c_str()) == 0;
  };
  const PeerProcess peer(backend, "quick");
  Side side(backend, quick);
  echoes(side, peer.address());
  REQUIRE(set("down"));
  side.write(0, 8, pack(Kind::echo, 0, 2));
  const Completion end = side.wait_down(limits::peer_lost_max);
  REQUIRE(set("up"));
  REQUIRE(end.error == Errc::peer_lost);
}
