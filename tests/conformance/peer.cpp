// The other process of the conformance suite: it serves one connection after the other until it is
// killed or its parent ends.
//
//   conformance_peer BACKEND ADDRESS TIMING [own-network]     TIMING: default or quick
//
// Prints the address it listens on. "own-network" enters a network namespace of its own first, prints
// a line and waits for a line.

#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iostream>
#include <string>
#include <thread>

#include "runtime/base/clock.hpp"
#include "runtime/wire/handshake.hpp"
#include "tests/conformance/protocol.hpp"

namespace {

using namespace sublet;
using namespace sublet::transport;
using namespace std::chrono_literals;

constexpr unsigned lifetime_seconds = 240;

class Peer {
 public:
  Peer(std::unique_ptr<Transport> transport, memory::Region region)
      : region_(std::move(region)), transport_(std::move(transport)) {}

  Status start(const std::string& address) {
    Result<RemoteRegion> registered = transport_->register_region(region_);
    if (!registered) return registered.error();
    own_ = *registered;
    Result<std::string> bound = transport_->listen(address);
    if (!bound) return bound.error();
    std::cout << *bound << std::endl;
    return {};
  }

  [[noreturn]] void run() {
    while (true) {
      serve_requests(connection_ == nullptr ? 100ms : 0ms);
      if (connection_ != nullptr) serve_connection();
    }
  }

 private:
  void serve_requests(std::chrono::milliseconds wait) {
    transport_->service(wait);
    for (const ConnectRequest& request : transport_->requests()) {
      const auto remote = wire::read_as<RemoteRegion>(request.private_data);
      if (!remote || remote->bytes == 0) {  // On verbs zeros follow what was sent.
        const wire::Refusal refusal = wire::refuse(Error(Errc::lease_expired, "come back with a region"));
        transport_->reject(request.id, wire::bytes_of(refusal));
        continue;
      }
      Result<std::unique_ptr<Connection>> accepted = transport_->accept(request.id, wire::bytes_of(own_));
      if (!accepted) continue;
      connection_ = std::move(*accepted);
      remote_ = *remote;
      backlog_.clear();
      flooding_ = false;
    }
  }

  void serve_connection() {
    int idle = 0;
    while (connection_ != nullptr) {
      std::array<Completion, 32> batch;
      const std::size_t count = connection_->poll(batch);
      for (std::size_t i = 0; i < count && connection_ != nullptr; ++i) handle(batch[i]);
      if (connection_ == nullptr) return;
      send_backlog();
      if (flooding_) flood();
      idle = count > 0 ? 0 : idle + 1;
      if (SteadyClock::now() >= next_service_) {
        next_service_ = SteadyClock::now() + 20ms;
        serve_requests(0ms);
      }
      if (connection_ != nullptr && idle > 8 && backlog_.empty() && !flooding_) sleep();
    }
  }

  void sleep() {
    if (!connection_->arm()) return;
    std::array<pollfd, 2> events{pollfd{connection_->descriptor(), POLLIN, 0},
                                 pollfd{transport_->service_descriptor(), POLLIN, 0}};
    ::poll(events.data(), events.size(), 20);
    if (events[1].revents != 0) next_service_ = {};
  }

  void handle(const Completion& completion) {
    if (completion.kind == Completion::Kind::down) {
      connection_ = nullptr;
      return;
    }
    if (completion.kind != Completion::Kind::arrival) return;
    const std::uint32_t number = conformance::number_of(completion.word);
    switch (conformance::kind_of(completion.word)) {
      case conformance::Kind::echo: {
        const std::uint32_t slot = conformance::slot_of(completion.word);
        backlog_.push_back({completion.word, slot * conformance::slot_bytes,
                            conformance::reply_slot(slot) * conformance::slot_bytes, completion.length});
        return;
      }
      case conformance::Kind::sum:
        return reply_digest(completion.word, completion.length);
      case conformance::Kind::sum_all:
        return reply_digest(completion.word, conformance::unwritten_bytes);
      case conformance::Kind::fill:
        for (std::size_t i = 0; i < region_.size(); ++i) region_.data()[i] = conformance::pattern(i, number);
        backlog_.push_back({completion.word, 0, 0, region_.size()});
        return;
      case conformance::Kind::stall:
        std::this_thread::sleep_for(std::chrono::milliseconds(number));
        return;
      case conformance::Kind::flood:
        flooding_ = true;
        return;
      case conformance::Kind::last_words:
        connection_->say_last_words(std::as_bytes(std::span("farewell", 8)));
        ::raise(SIGKILL);
        return;
      case conformance::Kind::close:
        for (std::uint32_t i = 0; i < number; ++i) {
          backlog_.push_back({conformance::pack(conformance::Kind::echo, 0, i), 0, 0, 8});
        }
        while (!backlog_.empty()) send_backlog();  // The test polls.
        connection_ = nullptr;
        return;
    }
  }

  void reply_digest(std::uint32_t word, std::size_t length) {
    const std::uint64_t digest = conformance::digest(region_.bytes().first(length));
    std::memcpy(region_.data() + conformance::unwritten_bytes, &digest, sizeof(digest));
    backlog_.push_back({word, conformance::unwritten_bytes, 0, sizeof(digest)});
  }

  void send_backlog() {
    while (!backlog_.empty()) {
      const Reply reply = backlog_.front();
      if (reply.length > region_.size() - reply.from) std::abort();
      const std::array pieces{std::span<const std::byte>(region_.data() + reply.from, reply.length)};
      const Status sent = connection_->write(pieces, remote_, reply.to, reply.word, {});
      if (!sent && sent.error().code() == Errc::queue_full) return;
      backlog_.pop_front();
    }
  }

  void flood() {
    const std::array pieces{std::span<const std::byte>(region_.data(), conformance::slot_bytes)};
    for (int i = 0; i < 8; ++i) {
      (void)connection_->write(pieces, remote_, 0, conformance::pack(conformance::Kind::echo, 0, 0), {});
    }
  }

  struct Reply {
    std::uint32_t word;
    std::size_t from;
    std::size_t to;
    std::uint64_t length;
  };
  memory::Region region_;
  std::unique_ptr<Transport> transport_;
  RemoteRegion own_;
  RemoteRegion remote_;
  std::unique_ptr<Connection> connection_;
  std::deque<Reply> backlog_;
  TimePoint next_service_{};
  bool flooding_ = false;
};

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) return 2;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::alarm(lifetime_seconds);
  if (count > 4) {
    std::string line;
    if (::unshare(CLONE_NEWNET) != 0) return 3;
    std::cout << "ready" << std::endl;
    if (!std::getline(std::cin, line)) return 4;
  }
  const Timing timing = std::strcmp(arguments[3], "quick") == 0 ? conformance::quick : Timing{};
  Result<std::unique_ptr<Transport>> transport = open(arguments[1], timing);
  Result<memory::Region> region = memory::Region::create(conformance::region_bytes, "conformance-peer");
  if (!transport || !region) return 5;
  Peer peer(std::move(*transport), std::move(*region));
  if (Status started = peer.start(arguments[2]); !started) {
    std::fprintf(stderr, "%s\n", started.error().message().c_str());
    return 6;
  }
  peer.run();
}
