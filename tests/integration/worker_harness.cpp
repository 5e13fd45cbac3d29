#include "tests/integration/worker_harness.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "tests/catch.hpp"

namespace sublet::test {
namespace {

constexpr std::size_t region_bytes = std::size_t{8} << 20;
/// The site's clock is the monotonic one and this: no wall clock of any day, so that none is taken for it.
constexpr std::uint64_t site_ms_ahead = 7'000'000'000;

std::uint64_t site_ms() {
  const auto since = SteadyClock::now().time_since_epoch();
  return site_ms_ahead +
         static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(since).count());
}

int milliseconds_until(TimePoint end) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - SteadyClock::now()).count();
  return static_cast<int>(std::max<std::int64_t>(left, 0));
}

}  // namespace

WorkerHarness::WorkerHarness()
    : directory_((std::filesystem::temp_directory_path() / "sublet-test-XXXXXX").string()) {
  REQUIRE(::mkdtemp(directory_.data()) != nullptr);
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  fill_random(node_key_);
  auto pair = local::make_socket_pair().value();
  const int theirs = pair.second.get();
  const std::string number = std::to_string(theirs);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::fcntl(theirs, F_SETFD, 0);
    ::execl(SUBLET_WORKER, "sublet-worker", "--template", number.c_str(), nullptr);
    ::_exit(127);
  }
  socket_ = std::move(pair.first);
}

WorkerHarness::~WorkerHarness() {
  socket_.reset();
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  std::error_code error;
  std::filesystem::remove_all(directory_, error);
}

WorkerHarness::Worker WorkerHarness::start(bool preload) {
  auto pair = local::make_socket_pair().value();
  Worker worker;
  worker.id = next_++;
  worker.socket = std::move(pair.first);
  local::Fork spec{
      .worker = worker.id, .region_bytes = region_bytes, .key = wire::worker_key(node_key_, worker.id)};
  REQUIRE(local::add(spec.listen, "tcp", "127.0.0.1:0"));
  REQUIRE(local::add(spec.listen, "shm", directory_ + "/w" + std::to_string(worker.id) + ".sock"));
  if (const char* address = std::getenv("SUBLET_TEST_RDMA_ADDRESS")) {
    REQUIRE(local::add(spec.listen, "verbs", std::string(address) + ":0"));
  }
  if (preload) {
    spec.function = 1;
    local::put(spec.function_path, SUBLET_PROBE_FUNCTION);
  }
  worker.usage = local::create_usage_file(directory_ + "/usage" + std::to_string(worker.id)).value();
  REQUIRE(local::send(socket_.get(), spec, std::array{pair.second.get(), worker.usage.get()}).ok());
  pair.second.reset();
  const auto forked = expect<local::Forked>(worker);
  REQUIRE(forked.has_value());
  worker.pid = forked->pid;
  const auto ready = expect<local::Ready>(worker);
  REQUIRE(ready.has_value());
  for (const local::Endpoint& endpoint : ready->endpoints) {
    worker.endpoints[std::string(local::get(endpoint.transport))] = local::get(endpoint.address);
  }
  return worker;
}

wire::SignedToken WorkerHarness::token(const Worker& worker, std::int64_t lease_ms) const {
  wire::SignedToken token;
  token.token = {.lease = 77,
                 .expiry_ms = site_ms() + static_cast<std::uint64_t>(lease_ms),
                 .worker = worker.id,
                 .tenant = 1,
                 .function = 1,
                 .cores = 1};
  token.mac = wire::sign(token.token, node_key_);
  return token;
}

std::optional<local::Packet> WorkerHarness::next_packet(Worker& worker, TimePoint end) {
  for (;;) {
    pollfd wait{worker.socket.get(), POLLIN, 0};
    if (::poll(&wait, 1, milliseconds_until(end)) <= 0) return std::nullopt;
    auto packet = local::receive(worker.socket.get());
    if (!packet) return std::nullopt;
    if (const auto attach = packet->as<local::Attach>()) {
      answer(worker, attach->token);
      continue;
    }
    return std::move(*packet);
  }
}

void WorkerHarness::answer(Worker& worker, const wire::Token& token) {
  local::Attached attached;
  const std::chrono::milliseconds end(token.expiry_ms - site_ms_ahead);
  attached.lease_end_ns = std::chrono::nanoseconds(end).count();
  local::put(attached.function_path, SUBLET_PROBE_FUNCTION);
  if (refuse_with) {
    attached.refused = static_cast<std::uint16_t>(refuse_with->code());
    local::put(attached.text, refuse_with->detail());
  }
  REQUIRE(local::send(worker.socket.get(), attached).ok());
}

void WorkerHarness::serve(Worker& worker) {
  pollfd wait{worker.socket.get(), POLLIN, 0};
  if (::poll(&wait, 1, 1) <= 0) return;
  std::array<std::byte, 4> kind{};
  // Only attach requests are taken here; what tests expect stays in the socket.
  if (::recv(worker.socket.get(), kind.data(), kind.size(), MSG_PEEK | MSG_DONTWAIT) != 4) return;
  local::Kind peeked{};
  std::memcpy(&peeked, kind.data(), sizeof(peeked));
  if (peeked != local::Kind::attach) return;
  const auto packet = local::receive(worker.socket.get());
  if (!packet) return;
  if (const auto attach = packet->as<local::Attach>()) answer(worker, attach->token);
}

std::optional<int> WorkerHarness::wait_exit(Worker& worker, std::chrono::milliseconds wait_max) {
  const TimePoint end = SteadyClock::now() + wait_max;
  // The socket's end comes with the process's.
  while (SteadyClock::now() < end) {
    pollfd wait{worker.socket.get(), POLLIN, 0};
    ::poll(&wait, 1, milliseconds_until(end));
    const auto packet = local::receive(worker.socket.get());
    if (!packet && packet.error().code() == Errc::closed) break;
  }
  int status = 0;
  while (SteadyClock::now() < end) {
    if (::waitpid(worker.pid, &status, WNOHANG) == worker.pid) return status;
    std::this_thread::yield();
  }
  return std::nullopt;
}

RawClient::RawClient(const std::string& transport, WorkerHarness& harness, WorkerHarness::Worker& worker)
    : region(memory::Region::create(std::size_t{1} << 20, "test-client").value()),
      harness_(harness),
      worker_(worker),
      transport_(transport::open(transport).value()),
      staging_(memory::Region::create(staged * staged_bytes, "test-staging").value()) {
  own_ = transport_->register_region(region).value();
  REQUIRE(transport_->register_region(staging_).ok());
}

Status RawClient::connect(std::span<const std::byte> hello) {
  // connect() waits for the worker, which waits for its agent: this test.
  std::atomic<bool> done{false};
  std::thread agent([&] {
    while (!done.load()) harness_.serve(worker_);
  });
  auto connected = transport_->connect(worker_.endpoints.at(std::string(transport_->name())), hello,
                                       std::chrono::seconds(20));
  done.store(true);
  agent.join();
  if (!connected) return connected.error();
  connection_ = std::move(connected->connection);
  const auto welcome = wire::parse_welcome(connected->private_data);
  if (!welcome) return welcome.error();
  remote = {.base = welcome->region_base, .key = welcome->region_key, .bytes = welcome->region_bytes};
  return {};
}

Status RawClient::open(const wire::SignedToken& token, std::uint8_t slots_log2,
                       std::uint8_t slot_bytes_log2) {
  slots_ = 1U << slots_log2;
  slot_bytes_ = std::size_t{1} << slot_bytes_log2;
  const wire::Hello hello{.slots_log2 = slots_log2, .slot_bytes_log2 = slot_bytes_log2, .token = token};
  if (Status connected = connect(wire::bytes_of(hello)); !connected) return connected;
  attach();
  return {};
}

void RawClient::attach() {
  const wire::Attach attach{.region_base = own_.base,
                            .region_key = own_.key,
                            .region_bytes = region.size(),
                            .messages_offset = region.size() - slots_ * limits::message_bytes,
                            .hot_us = 100};
  std::memcpy(region.data(), &attach, sizeof(attach));
  const std::array pieces{std::span<const std::byte>(region.bytes().first(sizeof(attach)))};
  REQUIRE(connection_->write(pieces, remote, wire::attach_offset, wire::Word{3, 0, 0}.pack(), {}).ok());
}

wire::RequestHeader RawClient::header(std::uint32_t entry, std::uint32_t slot) const {
  return {.entry = entry,
          .output_offset = 4096 + slot * output_bytes,
          .output_capacity = output_bytes,
          .deadline_us = 20'000'000};
}

Status RawClient::send(wire::RequestKind kind, std::uint16_t slot, std::uint16_t generation,
                       const wire::RequestHeader& header, std::string_view payload) {
  const auto staging = staging_.bytes().subspan(slot % staged * staged_bytes, staged_bytes);
  std::memcpy(staging.data(), &header, sizeof(header));
  std::memcpy(staging.data() + sizeof(header), payload.data(), payload.size());
  const bool full = kind == wire::RequestKind::invoke;
  const std::size_t skip = full ? 0 : sizeof(header);
  const std::array pieces{
      std::span<const std::byte>(staging.subspan(skip, sizeof(header) + payload.size() - skip))};
  const std::uint64_t offset =
      wire::control_bytes + slot * slot_bytes_ + (full ? wire::header_offset : wire::payload_offset);
  return connection_->write(pieces, remote, offset,
                            wire::Word{static_cast<std::uint8_t>(kind), slot, generation}.pack(), {});
}

Status RawClient::send_word(wire::RequestKind kind, std::uint16_t slot, std::uint16_t generation) {
  const std::array<std::span<const std::byte>, 1> nothing{};
  return connection_->write(nothing, remote, 0,
                            wire::Word{static_cast<std::uint8_t>(kind), slot, generation}.pack(), {});
}

std::optional<RawClient::Reply> RawClient::next(std::chrono::milliseconds wait_max) {
  const TimePoint end = SteadyClock::now() + wait_max;
  std::array<transport::Completion, 1> completion;
  while (!down_ && SteadyClock::now() < end) {
    transport_->service(std::chrono::milliseconds(0));
    if (connection_->poll(completion) == 0) {
      std::this_thread::yield();
      continue;
    }
    if (completion[0].kind == transport::Completion::Kind::down) down_ = true;
    if (completion[0].kind == transport::Completion::Kind::arrival) {
      return Reply{wire::Word::unpack(completion[0].word), completion[0].length};
    }
  }
  return std::nullopt;
}

std::string RawClient::output(const Reply& reply) const {
  const auto* data = reinterpret_cast<const char*>(region.data() + 4096 + reply.word.slot * output_bytes);
  return {data, std::min<std::size_t>(reply.length, output_bytes)};
}

std::string RawClient::message(const Reply& reply) const {
  const std::size_t offset =
      region.size() - slots_ * limits::message_bytes + reply.word.slot * limits::message_bytes;
  return {reinterpret_cast<const char*>(region.data() + offset),
          std::min<std::size_t>(reply.length, limits::message_bytes)};
}

void RawClient::renew(const wire::SignedToken& token) {
  std::memcpy(region.data() + 64, &token, sizeof(token));
  const std::array pieces{std::span<const std::byte>(region.bytes().subspan(64, sizeof(token)))};
  REQUIRE(connection_->write(pieces, remote, wire::renew_offset, wire::Word{4, 0, 0}.pack(), {}).ok());
}

std::optional<wire::LastWords> RawClient::last_words() const {
  return wire::read_as<wire::LastWords>(connection_->last_words());
}

}  // namespace sublet::test
