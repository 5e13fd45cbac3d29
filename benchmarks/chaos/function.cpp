// What the chaos test calls: notes in the client's ledger that it ran, works for a while, notes that it has
// finished, and gives the call's number back.
#include <sublet/function.hpp>

#include <chrono>
#include <cstring>
#include <memory>
#include <thread>

#include "benchmarks/chaos/ledger.hpp"

namespace {

using sublet::bench::chaos::Entry;
using sublet::bench::chaos::Ledger;
using sublet::bench::chaos::Order;

struct Noted {
  std::size_t operator()(const sublet::Call& call) {
    Order order;
    if (call.input().size() != sizeof(order)) throw std::invalid_argument("the input is no order");
    std::memcpy(&order, call.input().data(), sizeof(order));
    order.ledger[sizeof(order.ledger) - 1] = '\0';
    if (!ledger || ledger->path() != order.ledger) ledger = std::make_unique<Ledger>(order.ledger);
    Entry& entry = (*ledger)[order.call];
    entry.lease = order.lease;
    ++entry.started;
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(order.busy_us);
    while (std::chrono::steady_clock::now() < end) {
    }
    std::this_thread::sleep_for(std::chrono::microseconds(order.idle_us));
    ++entry.finished;
    const auto output = call.output_as<std::uint64_t>();
    if (output.empty()) throw std::length_error("the output has no room for a number");
    output[0] = order.call;
    return sizeof(std::uint64_t);
  }

  std::unique_ptr<Ledger> ledger;
};

}  // namespace

SUBLET_STATEFUL_FUNCTION(Noted)
