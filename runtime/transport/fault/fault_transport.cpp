#include "runtime/transport/fault/fault_transport.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "runtime/base/clock.hpp"

namespace sublet::transport::fault {
namespace {

/// splitmix64: a whole sequence from one number, the same everywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) noexcept : state_(seed) {}
  std::uint64_t next() noexcept {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15U;
    z = (z ^ z >> 30U) * 0xBF58476D1CE4E5B9U;
    z = (z ^ z >> 27U) * 0x94D049BB133111EBU;
    return z ^ z >> 31U;
  }
  bool happens(double probability) noexcept {
    return static_cast<double>(next() >> 11U) * 0x1.0p-53 < probability;
  }

 private:
  std::uint64_t state_;
};

class FaultConnection final : public Connection {
 public:
  FaultConnection(std::unique_ptr<Connection> inner, const Rules& rules, std::uint64_t seed, std::string name)
      : inner_(std::move(inner)), rules_(rules), arrivals_(seed), writes_(~seed), name_(std::move(name)) {}

  Status write(std::span<const std::span<const std::byte>> pieces, const RemoteRegion& remote,
               std::uint64_t offset, std::uint32_t word, WriteOptions options) noexcept override {
    if (Errc fault{}; refuses(fault)) return fault;
    return inner_->write(pieces, remote, offset, word, options);
  }
  Status write_silent(std::span<const std::byte> piece, const RemoteRegion& remote, std::uint64_t offset,
                      WriteOptions options) noexcept override {
    if (Errc fault{}; refuses(fault)) return fault;
    return inner_->write_silent(piece, remote, offset, options);
  }

  std::size_t poll(std::span<Completion> out) noexcept override {
    if (broken_) return tell_broken(out);
    std::array<Completion, 32> batch;
    // Each completion takes two places at most.
    while (held_max - (tail_ - head_) >= 2 * batch.size()) {
      const std::size_t count = inner_->poll(batch);
      for (const Completion& completion : std::span(batch).first(count)) take_in(completion);
      if (count < batch.size()) break;
    }
    if (head_ == tail_) return 0;
    const TimePoint now = SteadyClock::now();
    std::size_t count = 0;
    while (count < out.size() && head_ != tail_ && held_[head_ % held_max].due <= now) {
      out[count++] = held_[head_++ % held_max].completion;
    }
    return count;
  }

  bool arm() noexcept override {
    if (broken_) return broken_told_;
    return head_ == tail_ && inner_->arm();  // What is held has no event of its own: poll for it.
  }
  int descriptor() const noexcept override { return inner_->descriptor(); }
  void say_last_words(std::span<const std::byte> message) noexcept override {
    inner_->say_last_words(message);
  }
  std::span<const std::byte> last_words() const noexcept override { return inner_->last_words(); }
  void close() noexcept override { inner_->close(); }
  std::string_view transport_name() const noexcept override { return name_; }

 private:
  static constexpr std::uint32_t held_max = 8192;
  struct Held {
    Completion completion;
    TimePoint due;
  };

  bool refuses(Errc& fault) noexcept {
    if (broken_) {
      fault = Errc::peer_lost;
      return true;
    }
    const bool error = writes_.happens(rules_.error);
    const bool full = writes_.happens(rules_.full);
    if (error) {
      broken_ = true;
      inner_->close();
    }
    fault = error ? Errc::peer_lost : Errc::queue_full;
    return error || full;
  }

  std::size_t tell_broken(std::span<Completion> out) noexcept {
    if (broken_told_ || out.empty()) return 0;
    broken_told_ = true;
    out[0] = {.kind = Completion::Kind::down, .error = Errc::peer_lost};
    return 1;
  }

  void take_in(const Completion& completion) noexcept {
    if (completion.kind != Completion::Kind::arrival) return hold(completion);
    const bool dropped = arrivals_.happens(rules_.drop);
    const bool duplicated = arrivals_.happens(rules_.duplicate);
    const bool delayed = arrivals_.happens(rules_.delay);
    if (dropped) return;
    if (delayed) last_due_ = std::max(last_due_, SteadyClock::now() + rules_.delay_time);
    hold(completion);
    if (duplicated) hold(completion);
  }

  void hold(const Completion& completion) noexcept { held_[tail_++ % held_max] = {completion, last_due_}; }

  std::unique_ptr<Connection> inner_;
  Rules rules_;
  Random arrivals_;
  Random writes_;
  std::string name_;
  std::array<Held, held_max> held_;
  std::uint32_t head_ = 0;
  std::uint32_t tail_ = 0;
  TimePoint last_due_{};
  bool broken_ = false;
  bool broken_told_ = false;
};

class FaultTransport final : public Transport {
 public:
  FaultTransport(std::string_view name, const Specification& specification,
                 std::unique_ptr<Transport> backend)
      : name_(name), rules_(specification.rules), seeds_(specification.seed), backend_(std::move(backend)) {}

  std::string_view name() const noexcept override { return name_; }
  const Capabilities& capabilities() const noexcept override { return backend_->capabilities(); }
  Result<RemoteRegion> register_region(const memory::Region& region) override {
    return backend_->register_region(region);
  }
  Result<RemoteRegion> register_device_memory(const DeviceMemory& memory) override {
    return backend_->register_device_memory(memory);
  }
  void deregister(const RemoteRegion& region) noexcept override { backend_->deregister(region); }
  Result<std::string> listen(const std::string& address) override { return backend_->listen(address); }
  std::vector<ConnectRequest> requests() override { return backend_->requests(); }
  Result<std::unique_ptr<Connection>> accept(std::uint64_t request,
                                             std::span<const std::byte> private_data) override {
    Result<std::unique_ptr<Connection>> accepted = backend_->accept(request, private_data);
    if (!accepted) return accepted;
    return wrap(std::move(*accepted));
  }
  void reject(std::uint64_t request, std::span<const std::byte> private_data) noexcept override {
    backend_->reject(request, private_data);
  }
  Result<std::uint64_t> start_connect(const std::string& address, std::span<const std::byte> private_data,
                                      std::chrono::milliseconds timeout) override {
    return backend_->start_connect(address, private_data, timeout);
  }
  std::optional<Result<Connected>> take_connected(std::uint64_t attempt) override {
    std::optional<Result<Connected>> taken = backend_->take_connected(attempt);
    if (taken && taken->ok()) (*taken)->connection = wrap(std::move((*taken)->connection));
    return taken;
  }
  void give_up(std::uint64_t attempt) noexcept override { backend_->give_up(attempt); }
  void service(std::chrono::milliseconds wait_max) override { backend_->service(wait_max); }
  int service_descriptor() const noexcept override { return backend_->service_descriptor(); }

 private:
  std::unique_ptr<Connection> wrap(std::unique_ptr<Connection> inner) {
    return std::make_unique<FaultConnection>(std::move(inner), rules_, seeds_.next(), name_);
  }

  std::string name_;
  Rules rules_;
  Random seeds_;
  std::unique_ptr<Transport> backend_;
};

}  // namespace

std::unique_ptr<Transport> decorate(std::string_view name, const Specification& specification,
                                    std::unique_ptr<Transport> backend) {
  return std::make_unique<FaultTransport>(name, specification, std::move(backend));
}

}  // namespace sublet::transport::fault
