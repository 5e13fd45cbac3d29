#include <array>
#include <cstring>
#include <stdexcept>

#include "benchmarks/baselines/baseline.hpp"
#include "benchmarks/baselines/peer.hpp"
#include "benchmarks/baselines/stream.hpp"

namespace sublet::bench {
namespace {

/// As much as a call of ours says before its payload.
struct Frame {
  std::uint64_t length = 0;
  std::uint64_t offset = 0;
  std::uint64_t key = 0;
  std::uint64_t word = 0;
};
static_assert(sizeof(Frame) == 32);

/// One end with room for a frame and its payload, which stay where they were received.
class FramedEnd {
 public:
  FramedEnd(Stream stream, std::size_t bytes_max)
      : stream_(std::move(stream)), room_(sizeof(Frame) + bytes_max, std::byte{0x5A}) {}

  void send(std::size_t bytes, std::chrono::microseconds hot) {
    const Frame frame{.length = bytes};
    std::memcpy(room_.data(), &frame, sizeof frame);
    stream_.send(std::span<const std::byte>(room_).first(sizeof frame + bytes), hot);
  }

  /// The payload's length.
  std::size_t receive(std::chrono::microseconds hot) {
    std::size_t have = 0;
    while (have < sizeof(Frame)) have += stream_.receive_some(std::span(room_).subspan(have), hot);
    Frame frame;
    std::memcpy(&frame, room_.data(), sizeof frame);
    if (frame.length > room_.size() - sizeof frame || have > sizeof frame + frame.length)
      throw std::runtime_error("a frame of a wrong length came");
    stream_.receive(std::span(room_).subspan(have, sizeof frame + frame.length - have), hot);
    return frame.length;
  }

 private:
  Stream stream_;
  std::vector<std::byte> room_;
};

class FramedSocket final : public Baseline {
 public:
  FramedSocket(std::pair<Stream, Stream> ends, const BaselineShape& shape)
      : end_(std::move(ends.first), shape.bytes_max), peer_(shape.cores, [&](const Control& control) {
          serve(control, FramedEnd(std::move(ends.second), shape.bytes_max));
        }) {}

  std::string name() const override { return "framed socket"; }
  void open() override { peer_.wait_until_ready(); }

  std::chrono::nanoseconds run(const Plan& plan, Histogram& times) override {
    peer_.control().send(plan);
    return time_calls(plan, times, [&] {
      end_.send(plan.bytes, plan.hot);
      if (end_.receive(plan.hot) != plan.bytes) throw std::runtime_error("a frame of a wrong length came");
    });
  }

 private:
  static void serve(const Control& control, FramedEnd end) {
    say_ready(control);
    while (true) {
      const Plan plan = control.receive<Plan>();
      for (std::uint32_t i = 0; i < plan.messages(); ++i) end.send(end.receive(plan.hot), plan.hot);
    }
  }

  FramedEnd end_;
  Peer peer_;
};

}  // namespace

std::unique_ptr<Baseline> make_framed_socket(const BaselineShape& shape) {
  return std::make_unique<FramedSocket>(Stream::tcp_pair(), shape);
}

}  // namespace sublet::bench
