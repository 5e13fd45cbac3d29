#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "client/invocations.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::client::test {

/// A worker's side of one connection, in memory: it has the input region and sees each word.
struct FakeWorker {
  struct Request {
    wire::RequestKind kind{};
    std::uint32_t slot = 0;
    std::uint16_t generation = 0;
    wire::RequestHeader header;
    std::vector<std::byte> input;
  };

  explicit FakeWorker(std::uint32_t slots_log2 = 2, std::uint32_t slot_bytes_log2 = 8,
                      std::size_t region_bytes = 4096 + 4 * 256 + 4096)
      : region(region_bytes), slot_bytes(std::size_t{1} << slot_bytes_log2) {
    const wire::Hello hello{.slots_log2 = static_cast<std::uint8_t>(slots_log2),
                            .slot_bytes_log2 = static_cast<std::uint8_t>(slot_bytes_log2)};
    layout = wire::layout_of(hello, region_bytes).value();
  }

  std::vector<std::byte> region;
  std::size_t slot_bytes;
  wire::Layout layout;
  std::uint64_t output_bytes_max = 1 << 20;
  std::uint32_t entries = 2;

  std::vector<Request> calls;  ///< Not answered yet.
  std::vector<Request> cancels;
  std::vector<wire::SignedToken> renewals;
  wire::Attach attach;
  bool attached = false;
  bool closed_by_client = false;
  std::uint32_t room = 1000;  ///< Writes until queue_full.
  bool gone = false;
  std::array<std::byte, 64> last{};
  std::size_t last_bytes = 0;
  std::deque<transport::Completion> to_client;
  std::map<std::uint32_t, wire::RequestHeader> headers;

  void land(std::uint64_t offset, std::span<const std::byte> bytes, std::uint32_t packed) {
    const wire::Word word = wire::Word::unpack(packed);
    const auto kind = static_cast<wire::RequestKind>(word.kind);
    if (kind == wire::RequestKind::attach) {
      std::memcpy(&attach, bytes.data(), sizeof(attach));
      attached = true;
      return;
    }
    if (kind == wire::RequestKind::renew) {
      renewals.push_back(*wire::read_as<wire::SignedToken>(bytes));
      return;
    }
    Request request{.kind = kind, .slot = word.slot, .generation = word.generation};
    if (kind == wire::RequestKind::cancel) {
      cancels.push_back(request);
      return;
    }
    if (kind == wire::RequestKind::invoke) headers[word.slot] = *wire::read_as<wire::RequestHeader>(bytes);
    request.header = headers.at(word.slot);
    std::span<const std::byte> input = bytes;
    if (kind == wire::RequestKind::invoke) input = bytes.subspan(sizeof(wire::RequestHeader));
    if (request.header.flags == wire::flag_large_input) {
      input = std::span(region).subspan(request.header.input_offset, request.header.input_bytes);
    }
    (void)offset;
    request.input.assign(input.begin(), input.end());
    calls.push_back(std::move(request));
  }

  void reply(wire::ReplyKind kind, std::uint32_t slot, std::uint16_t generation, std::uint64_t length) {
    to_client.push_back(
        {.kind = transport::Completion::Kind::arrival,
         .word =
             wire::Word{static_cast<std::uint8_t>(kind), static_cast<std::uint16_t>(slot), generation}.pack(),
         .length = length});
  }

  void go_down(Errc error = Errc::peer_lost) {
    gone = true;
    to_client.push_back({.kind = transport::Completion::Kind::down, .error = error});
  }

  void say_last(const wire::LastWords& words) {
    std::memcpy(last.data(), &words, sizeof(words));
    last_bytes = sizeof(words);
  }
};

class FakeConnection final : public transport::Connection {
 public:
  explicit FakeConnection(std::shared_ptr<FakeWorker> worker) : worker_(std::move(worker)) {}

  Status write(std::span<const std::span<const std::byte>> pieces, const transport::RemoteRegion& remote,
               std::uint64_t offset, std::uint32_t word, WriteOptions options) noexcept override {
    if (worker_->gone || worker_->closed_by_client) return Errc::peer_lost;
    if (worker_->room == 0) return Errc::queue_full;
    --worker_->room;
    std::uint64_t at = offset;
    for (const auto piece : pieces) {
      if (at + piece.size() > remote.bytes) return Errc::too_large;
      if (!piece.empty()) std::memcpy(worker_->region.data() + at, piece.data(), piece.size());
      at += piece.size();
    }
    worker_->land(offset, std::span(worker_->region).subspan(offset, at - offset), word);
    if (options.signal) {
      worker_->to_client.push_back({.kind = transport::Completion::Kind::sent, .context = options.context});
    }
    return {};
  }

  Status write_silent(std::span<const std::byte> piece, const transport::RemoteRegion& remote,
                      std::uint64_t offset, WriteOptions) noexcept override {
    if (worker_->gone || worker_->closed_by_client) return Errc::peer_lost;
    if (worker_->room == 0) return Errc::queue_full;
    --worker_->room;
    if (offset + piece.size() > remote.bytes) return Errc::too_large;
    std::memcpy(worker_->region.data() + offset, piece.data(), piece.size());
    return {};
  }

  std::size_t poll(std::span<transport::Completion> out) noexcept override {
    std::size_t count = 0;
    while (count < out.size() && !worker_->to_client.empty()) {
      out[count++] = worker_->to_client.front();
      worker_->to_client.pop_front();
    }
    return count;
  }

  bool arm() noexcept override { return worker_->to_client.empty(); }
  int descriptor() const noexcept override { return -1; }
  void say_last_words(std::span<const std::byte>) noexcept override {}
  std::span<const std::byte> last_words() const noexcept override {
    return std::span(worker_->last).first(worker_->last_bytes);
  }
  void close() noexcept override { worker_->closed_by_client = true; }
  std::string_view transport_name() const noexcept override { return "fake"; }

 private:
  std::shared_ptr<FakeWorker> worker_;
};

/// A lease's calls over fake workers.
struct FakeLease {
  explicit FakeLease(std::uint32_t links, std::uint32_t slots = 4, std::size_t arena_bytes = 1 << 20)
      : plan{links, slots},
        region(plan.arena_offset() + arena_bytes),
        calls(region.data(), region.size(), plan, 200) {
    for (std::uint32_t link = 0; link < links; ++link) {
      workers.push_back(nullptr);
      connect(link);
    }
  }

  void connect(std::uint32_t link, std::shared_ptr<FakeWorker> worker = nullptr) {
    if (!worker) worker = std::make_shared<FakeWorker>();
    workers[link] = worker;
    Established made{.connection = std::make_unique<FakeConnection>(worker),
                     .capabilities = {.inline_bytes = 32, .write_bytes_max = 1000},
                     .welcome = {.region_bytes = worker->region.size(),
                                 .output_bytes_max = worker->output_bytes_max,
                                 .entries = worker->entries},
                     .layout = worker->layout,
                     .identity = {.node = 1, .worker = ++next_worker, .transport = "fake"}};
    calls.connect(link, std::move(made), {.base = 0, .key = 7, .bytes = region.size()}).value();
  }

  struct Piece {
    std::uint32_t block = 0;
    std::span<std::byte> bytes;
    std::size_t offset = 0;
  };
  Piece allocate(std::size_t bytes) {
    const auto got = calls.blocks().allocate(bytes).value();
    return {got.block, std::span(region).subspan(got.offset, bytes), got.offset};
  }

  [[nodiscard]] CallSpec spec(const Piece& input, const Piece& output,
                              std::chrono::microseconds deadline = std::chrono::seconds(10)) const {
    return {.input = input.bytes,
            .output_offset = output.offset,
            .output_capacity = output.bytes.size(),
            .deadline_us = static_cast<std::uint64_t>(deadline.count()),
            .deadline = now + deadline,
            .input_block = input.block,
            .output_block = output.block};
  }
  Result<CallHandle> submit(const Piece& input, const Piece& output,
                            std::chrono::microseconds deadline = std::chrono::seconds(10)) {
    return calls.submit(spec(input, output, deadline), now);
  }

  /// Answers with the input's bytes and length.
  void echo(FakeWorker& worker, std::size_t which = 0) {
    const FakeWorker::Request request = worker.calls.at(which);
    worker.calls.erase(worker.calls.begin() + static_cast<std::ptrdiff_t>(which));
    if (!request.input.empty()) {
      std::memcpy(region.data() + request.header.output_offset, request.input.data(), request.input.size());
    }
    worker.reply(wire::ReplyKind::ok, request.slot, request.generation, request.input.size());
  }
  void answer(FakeWorker& worker, wire::ReplyKind kind, std::string_view text = "", std::size_t which = 0) {
    const FakeWorker::Request request = worker.calls.at(which);
    worker.calls.erase(worker.calls.begin() + static_cast<std::ptrdiff_t>(which));
    std::memcpy(region.data() + worker.attach.messages_offset + request.slot * limits::message_bytes,
                text.data(), text.size());
    worker.reply(kind, request.slot, request.generation, text.size());
  }
  void progress() { calls.progress(now, true); }

  /// The final status: 0 when there is none, 1 when ok, else the Errc.
  static constexpr int pending = 0;
  static constexpr int success = 1'000'000;
  int status(CallHandle handle) {
    const Call* const call = calls.find(handle);
    if (call == nullptr) return -1;
    if (call->state != Call::State::done) return pending;
    return call->ok ? success : static_cast<int>(call->error);
  }
  int take(CallHandle handle) {
    const int result = status(handle);
    if (result != pending && result != -1) calls.forget(*calls.find(handle));
    return result;
  }

  RegionPlan plan;
  std::vector<std::byte> region;
  TimePoint now{std::chrono::seconds(100)};
  std::uint32_t next_worker = 0;
  std::vector<std::shared_ptr<FakeWorker>> workers;
  Invocations calls;
};

}  // namespace sublet::client::test
