#include "benchmarks/chaos/client.hpp"

#include <array>
#include <csignal>
#include <cstring>
#include <random>
#include <sublet/client.hpp>
#include <thread>

#include "benchmarks/chaos/ledger.hpp"

namespace sublet::bench::chaos {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t in_flight = 4;
constexpr auto pause = 50ms;

volatile std::sig_atomic_t ending = 0;

Outcome outcome_of(Errc code) {
  switch (code) {
    case Errc::function_failed:
      return Outcome::function_failed;
    case Errc::not_started:
      return Outcome::not_started;
    case Errc::worker_lost:
      return Outcome::worker_lost;
    case Errc::deadline_exceeded:
      return Outcome::deadline_exceeded;
    case Errc::cancelled:
      return Outcome::cancelled;
    case Errc::lease_expired:
    case Errc::lease_revoked:
    case Errc::closed:
      return Outcome::lease_ended;
    default:
      return Outcome::wrong;
  }
}

class Client {
 public:
  explicit Client(const ClientOptions& options)
      : options_(options), ledger_(options.ledger), random_(options.seed) {}

  void run() {
    while (ending == 0 && next_ < calls_max) {
      auto site = Site::connect(options_.manager, {.tenant = options_.tenant, .timeout = 3s});
      while (site && ending == 0 && next_ < calls_max) {
        if (!use_a_lease(*site)) break;
      }
      std::this_thread::sleep_for(pause);
    }
  }

 private:
  struct Slot {
    Buffer input;
    Buffer output;
    Future future;
    std::uint64_t call = 0;
    bool busy = false;
  };

  std::uint32_t below(std::uint32_t bound) {
    return std::uniform_int_distribution<std::uint32_t>(0, bound - 1)(random_);
  }
  bool one_in(std::uint32_t many) { return below(many) == 0; }

  bool use_a_lease(Site& site) {
    auto lease = site.lease({.function = "chaos@1",
                             .workers = 1 + below(2),
                             .ttl = std::chrono::milliseconds(2'000 + below(6'000)),
                             .wait = 3s,
                             .transports = {.require = {options_.transport}},
                             .in_flight = 16});
    if (!lease) return false;
    std::array<Slot, in_flight> slots;
    for (Slot& slot : slots) {
      slot.input = lease->allocate(sizeof(Order)).value();
      slot.output = lease->allocate(64).value();
    }
    const std::uint32_t calls = 1 + below(1'500);
    bool good = true;
    for (std::uint32_t i = 0; i < calls && good && ending == 0 && next_ < calls_max; ++i) {
      Slot& slot = slots[i % in_flight];
      good = finish(slot) && begin(*lease, slot);
      if (one_in(4)) std::this_thread::sleep_for(200us);
    }
    for (Slot& slot : slots) finish(slot);
    // Refused or unheard: then the lease runs out by itself.
    static_cast<void>(lease->release());
    return true;
  }

  /// False when the lease is of no more use.
  bool begin(Lease& lease, Slot& slot) {
    slot.call = next_++;
    Order order{.call = slot.call, .lease = lease.id()};
    if (one_in(8)) order.busy_us = below(2'000);
    if (one_in(50)) order.idle_us = below(40'000);
    std::strncpy(order.ledger, options_.ledger.c_str(), sizeof(order.ledger) - 1);
    std::memcpy(slot.input.data(), &order, sizeof(order));
    Entry& entry = ledger_[slot.call];
    const bool idempotent = one_in(2);
    entry.kind = idempotent ? Kind::idempotent : Kind::once;
    entry.outcome = Outcome::begun;
    auto future = lease.submit(slot.input, sizeof(order), slot.output,
                               {.deadline = one_in(30) ? 5ms : 10'000ms, .idempotent = idempotent});
    if (!future) {
      entry.outcome = Outcome::refused;
      return outcome_of(future.error().code()) != Outcome::lease_ended;
    }
    slot.future = *std::move(future);
    slot.busy = true;
    if (one_in(50)) slot.future.cancel();
    return true;
  }

  bool finish(Slot& slot) {
    if (!slot.busy) return true;
    slot.busy = false;
    const auto result = slot.future.wait();
    Outcome outcome = Outcome::ok;
    if (!result) {
      outcome = outcome_of(result.error().code());
      if (outcome == Outcome::wrong)
        ledger_[slot.call].error = static_cast<std::uint16_t>(result.error().code());
    } else if (*result != sizeof(slot.call) ||
               std::memcmp(slot.output.data(), &slot.call, sizeof(slot.call)) != 0) {
      outcome = Outcome::wrong;
    }
    // A second end of one call would be the client's fault, and is as wrong.
    if (ledger_[slot.call].outcome.exchange(outcome) != Outcome::begun)
      ledger_[slot.call].outcome = Outcome::wrong;
    return outcome != Outcome::lease_ended;
  }

  const ClientOptions& options_;
  Ledger ledger_;
  std::minstd_rand random_;
  std::uint64_t next_ = 0;
};

}  // namespace

void run_client(const ClientOptions& options) {
  std::signal(SIGTERM, [](int) { ending = 1; });
  Client(options).run();
}

}  // namespace sublet::bench::chaos
