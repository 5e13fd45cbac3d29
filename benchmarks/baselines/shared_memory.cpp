#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <stdexcept>

#include "benchmarks/baselines/await.hpp"
#include "benchmarks/baselines/baseline.hpp"
#include "benchmarks/baselines/peer.hpp"

namespace sublet::bench {
namespace {

constexpr std::size_t line_bytes = 64;

/// One message's place, one direction. A payload that fits lies in the word's own cache line.
struct Slot {
  alignas(line_bytes) std::atomic<std::uint32_t> turn{0};
  std::array<std::byte, line_bytes - sizeof(std::uint32_t)> small;
};
static_assert(sizeof(Slot) == line_bytes && std::atomic<std::uint32_t>::is_always_lock_free);

/// What a direction has besides its slots.
struct Front {
  alignas(line_bytes) std::atomic<std::uint32_t> asleep{0};  ///< The reader wants its bell rung.
};

/// Memory of both directions, shared by a fork.
class Shared {
 public:
  Shared(std::size_t bytes_max, std::uint32_t window)
      : stride_(sizeof(Slot) + (bytes_max + line_bytes - 1) / line_bytes * line_bytes),
        direction_(sizeof(Front) + window * stride_),
        data_(mmap(nullptr, 2 * direction_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE,
                   -1, 0)) {
    if (data_ == MAP_FAILED) throw std::runtime_error("mmap: no memory for a baseline");
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { munmap(data_, 2 * direction_); }

  [[nodiscard]] Front& front(int direction) const noexcept {
    return *reinterpret_cast<Front*>(start(direction));
  }
  [[nodiscard]] Slot& slot(int direction, std::uint32_t index) const noexcept {
    return *reinterpret_cast<Slot*>(start(direction) + sizeof(Front) + index * stride_);
  }
  [[nodiscard]] static std::byte* payload(Slot& slot, std::size_t bytes) noexcept {
    return bytes <= slot.small.size() ? slot.small.data() : reinterpret_cast<std::byte*>(&slot + 1);
  }

 private:
  [[nodiscard]] std::byte* start(int direction) const noexcept {
    return static_cast<std::byte*>(data_) + static_cast<std::size_t>(direction) * direction_;
  }

  std::size_t stride_;
  std::size_t direction_;
  void* data_;
};

/// One end: writes into one direction, waits for the other.
class End {
 public:
  End(const Shared& shared, int out, int bell_out, int bell_in)
      : shared_(shared), out_(out), bell_out_(bell_out), bell_in_(bell_in) {}

  void write(std::uint32_t index, std::uint32_t turn, const std::byte* data, std::size_t bytes) const {
    Slot& slot = shared_.slot(out_, index);
    std::memcpy(Shared::payload(slot, bytes), data, bytes);
    // Pairs with sleep(): one of the two sees the other.
    slot.turn.store(turn, std::memory_order_seq_cst);
    Front& front = shared_.front(out_);
    if (front.asleep.load(std::memory_order_seq_cst) == 0) return;
    front.asleep.store(0, std::memory_order_relaxed);
    const std::uint64_t one = 1;
    (void)!::write(bell_out_, &one, sizeof one);
  }

  /// What came, where it lies.
  [[nodiscard]] const std::byte* wait(std::uint32_t index, std::uint32_t turn, std::size_t bytes,
                                      std::chrono::microseconds hot) const {
    Slot& slot = shared_.slot(1 - out_, index);
    await(
        hot, [&] { return slot.turn.load(std::memory_order_acquire) == turn; }, [&] { sleep(slot, turn); });
    return Shared::payload(slot, bytes);
  }

 private:
  void sleep(const Slot& slot, std::uint32_t turn) const {
    Front& front = shared_.front(1 - out_);
    front.asleep.store(1, std::memory_order_seq_cst);
    if (slot.turn.load(std::memory_order_seq_cst) != turn) sleep_on(bell_in_);
    front.asleep.store(0, std::memory_order_relaxed);
    std::uint64_t rings = 0;
    (void)!::read(bell_in_, &rings, sizeof rings);
  }

  const Shared& shared_;
  int out_;
  int bell_out_;
  int bell_in_;
};

class SharedMemory final : public Baseline {
 public:
  explicit SharedMemory(const BaselineShape& shape)
      : shared_(shape.bytes_max, shape.window_max),
        to_peer_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
        to_us_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
        end_(shared_, 0, to_peer_.get(), to_us_.get()),
        message_(shape.bytes_max, std::byte{0x5A}),
        peer_(shape.cores, [&](const Control& control) {
          serve(control, End(shared_, 1, to_us_.get(), to_peer_.get()));
        }) {}

  std::string name() const override { return "shared memory"; }
  void open() override { peer_.wait_until_ready(); }

  std::chrono::nanoseconds run(const Plan& plan, Histogram& times) override {
    peer_.control().send(plan);
    if (plan.window > 1) return run_window(plan, times);
    return time_calls(plan, times, [&] {
      end_.write(0, ++turn_, message_.data(), plan.bytes);
      (void)end_.wait(0, turn_, plan.bytes, plan.hot);
    });
  }

 private:
  /// Slots are used in turn; the peer answers in order.
  std::chrono::nanoseconds run_window(const Plan& plan, Histogram& times) {
    std::vector<Clock::time_point> started(plan.window);
    Clock::time_point begun{};
    Clock::time_point ended{};
    const std::uint32_t first = turn_ + 1;
    std::uint32_t sent = 0;
    for (std::uint32_t done = 0; done < plan.messages(); ++done) {
      for (; sent < plan.messages() && sent < done + plan.window; ++sent) {
        started[sent % plan.window] = Clock::now();
        end_.write(sent % plan.window, first + sent, message_.data(), plan.bytes);
      }
      (void)end_.wait(done % plan.window, first + done, plan.bytes, plan.hot);
      ended = Clock::now();
      if (done + 1 == plan.warm_up) begun = ended;
      if (done >= plan.warm_up) times.add(ended - started[done % plan.window]);
    }
    turn_ += plan.messages();
    return ended - begun;
  }

  static void serve(const Control& control, const End& end) {
    say_ready(control);
    std::uint32_t turn = 0;
    while (true) {
      const Plan plan = control.receive<Plan>();
      for (std::uint32_t i = 0; i < plan.messages(); ++i) {
        const std::uint32_t slot = i % plan.window;
        const std::byte* const came = end.wait(slot, ++turn, plan.bytes, plan.hot);
        end.write(slot, turn, came, plan.bytes);
      }
    }
  }

  Shared shared_;
  FileDescriptor to_peer_;
  FileDescriptor to_us_;
  End end_;
  std::vector<std::byte> message_;
  std::uint32_t turn_ = 0;
  Peer peer_;
};

}  // namespace

std::unique_ptr<Baseline> make_shared_memory(const BaselineShape& shape) {
  return std::make_unique<SharedMemory>(shape);
}

}  // namespace sublet::bench
