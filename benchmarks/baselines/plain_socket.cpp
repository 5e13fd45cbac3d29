#include "benchmarks/baselines/baseline.hpp"
#include "benchmarks/baselines/peer.hpp"
#include "benchmarks/baselines/stream.hpp"

namespace sublet::bench {
namespace {

/// Both ends know how long a message is, so that nothing but payload crosses.
class PlainSocket final : public Baseline {
 public:
  PlainSocket(std::string name, std::pair<Stream, Stream> ends, const BaselineShape& shape)
      : name_(std::move(name)),
        stream_(std::move(ends.first)),
        room_(shape.bytes_max, std::byte{0x5A}),
        peer_(shape.cores, [&](const Control& control) { serve(control, ends.second, shape.bytes_max); }) {}

  std::string name() const override { return name_; }
  void open() override { peer_.wait_until_ready(); }

  std::chrono::nanoseconds run(const Plan& plan, Histogram& times) override {
    peer_.control().send(plan);
    const std::span<std::byte> message = std::span(room_).first(plan.bytes);
    return time_calls(plan, times, [&] {
      stream_.send(message, plan.hot);
      stream_.receive(message, plan.hot);
    });
  }

 private:
  static void serve(const Control& control, const Stream& stream, std::size_t bytes_max) {
    std::vector<std::byte> room(bytes_max);
    say_ready(control);
    while (true) {
      const Plan plan = control.receive<Plan>();
      const std::span<std::byte> message = std::span(room).first(plan.bytes);
      for (std::uint32_t i = 0; i < plan.messages(); ++i) {
        stream.receive(message, plan.hot);
        stream.send(message, plan.hot);
      }
    }
  }

  std::string name_;
  Stream stream_;
  std::vector<std::byte> room_;
  Peer peer_;
};

}  // namespace

std::unique_ptr<Baseline> make_tcp_socket(const BaselineShape& shape) {
  return std::make_unique<PlainSocket>("TCP socket", Stream::tcp_pair(), shape);
}

std::unique_ptr<Baseline> make_unix_socket(const BaselineShape& shape) {
  return std::make_unique<PlainSocket>("unix socket", Stream::unix_pair(), shape);
}

}  // namespace sublet::bench
