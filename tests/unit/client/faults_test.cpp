// Seeded faults over fake workers: replies out of order, late, twice, with wrong generations; queues that
// fill; workers that vanish at any moment. Whatever happens, every call gets exactly one final status and
// nothing that a worker may still touch is given to another call.
#include <map>
#include <optional>
#include <random>
#include <set>

#include "tests/catch.hpp"
#include "tests/unit/client/fake_worker.hpp"

using namespace sublet;
using namespace sublet::client;
using namespace sublet::client::test;
using namespace std::chrono_literals;

namespace {

class Chaos {
 public:
  explicit Chaos(std::uint32_t seed) : random_(seed), lease_(links, slots, 1 << 20) {}

  void run(int steps) {
    for (int step = 0; step < steps; ++step) {
      act();
      lease_.calls.progress(lease_.now, chance(50));
      collect();
      check_exclusive();
    }
    finish();
  }

 private:
  static constexpr std::uint32_t links = 3;
  static constexpr std::uint32_t slots = 4;

  struct Pending {
    CallHandle handle;
    FakeLease::Piece input;
    FakeLease::Piece output;
    std::byte mark{};
  };

  bool chance(int percent) { return static_cast<int>(random_() % 100) < percent; }
  std::size_t pick(std::size_t count) { return random_() % count; }
  FakeWorker& any_worker() { return *lease_.workers[pick(links)]; }

  void act() {
    switch (pick(12)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return submit();
      case 4:
      case 5:
      case 6:
        return answer(any_worker());
      case 7:
        return lie(any_worker());
      case 8:
        lease_.now += std::chrono::milliseconds(pick(20));
        return;
      case 9:
        if (!pending_.empty()) lease_.calls.cancel(pending_[pick(pending_.size())].handle);
        return;
      case 10:
        any_worker().room = chance(30) ? 0 : 1000;
        return;
      default:
        if (chance(20)) lose(pick(links));
        replace();
        return;
    }
  }

  void submit() {
    const std::size_t bytes = chance(20) ? 1000 + pick(1500) : pick(190);
    Pending call{.input = lease_.allocate(bytes), .output = lease_.allocate(2600)};
    call.mark = static_cast<std::byte>(random_());
    std::fill(call.input.bytes.begin(), call.input.bytes.end(), call.mark);
    CallSpec spec = lease_.spec(call.input, call.output, std::chrono::milliseconds(1 + pick(200)));
    spec.idempotent = chance(50);
    const auto handle = lease_.calls.submit(spec, lease_.now);
    if (!handle.ok()) {
      CHECK(handle.error().code() == Errc::queue_full);
      drop(call);
      return;
    }
    ++submitted_;
    call.handle = *handle;
    if (chance(10)) {
      lease_.calls.forget(*lease_.calls.find(call.handle));
      drop(call);
      return;
    }
    pending_.push_back(call);
  }

  void answer(FakeWorker& worker) {
    if (worker.calls.empty() || worker.gone) return;
    const std::size_t which = pick(worker.calls.size());
    const int kind = static_cast<int>(pick(10));
    if (kind < 7) {
      const FakeWorker::Request& request = worker.calls[which];
      const std::uint32_t slot = request.slot;
      const std::uint16_t generation = request.generation;
      lease_.echo(worker, which);
      if (chance(20)) worker.reply(wire::ReplyKind::ok, slot, generation, 0);  // Twice.
    } else if (kind == 7) {
      lease_.answer(worker, wire::ReplyKind::function_failed, "no", which);
    } else if (kind == 8) {
      lease_.answer(worker, wire::ReplyKind::cancelled, "", which);
    } else {
      lease_.answer(worker, wire::ReplyKind::not_started, "", which);
    }
  }

  /// Replies to nothing: wrong generation, or of a slot that is not in use.
  void lie(FakeWorker& worker) {
    if (worker.gone) return;
    worker.reply(wire::ReplyKind::ok, static_cast<std::uint32_t>(pick(slots)),
                 static_cast<std::uint16_t>(40'000 + pick(1000)), pick(100));
  }

  void lose(std::size_t link) {
    FakeWorker& worker = *lease_.workers[link];
    if (worker.gone) return;
    if (!worker.calls.empty() && chance(50)) {
      const FakeWorker::Request& crashed = worker.calls[pick(worker.calls.size())];
      worker.say_last({.slot = static_cast<std::uint16_t>(crashed.slot),
                       .generation = crashed.generation,
                       .signal = chance(50) ? 11U : 0U});
    }
    worker.go_down();
  }

  void replace() {
    for (LostWorker& lost : lease_.calls.take_lost()) lease_.connect(lost.link);
  }

  void collect() {
    for (std::size_t i = 0; i < pending_.size();) {
      const Pending& call = pending_[i];
      const Call* const record = lease_.calls.find(call.handle);
      REQUIRE(record != nullptr);
      if (record->state != Call::State::done) {
        ++i;
        continue;
      }
      if (record->ok) {
        // Its own input came back, whole: no other call wrote into this output, none was mixed up.
        CHECK(record->output_bytes == call.input.bytes.size());
        for (const std::byte byte : call.output.bytes.first(record->output_bytes)) REQUIRE(byte == call.mark);
      }
      ++finished_;
      lease_.take(call.handle);
      CHECK(lease_.calls.find(call.handle) == nullptr);
      drop(call);
      pending_[i] = pending_.back();
      pending_.pop_back();
    }
  }

  void drop(const Pending& call) {
    lease_.calls.blocks().drop(call.input.block);
    lease_.calls.blocks().drop(call.output.block);
  }

  /// What live workers may write to never overlaps.
  void check_exclusive() {
    std::set<std::uint64_t> outputs;
    for (const auto& worker : lease_.workers) {
      if (worker->gone || worker->closed_by_client) continue;
      std::set<std::uint32_t> used;
      for (const auto& call : worker->calls) {
        REQUIRE(used.insert(call.slot).second);
        REQUIRE(outputs.insert(call.header.output_offset).second);
      }
    }
  }

  void finish() {
    for (const auto& worker : lease_.workers) worker->room = 1'000'000;
    lease_.now += 1h;  // Every deadline has passed.
    lease_.progress();
    collect();
    CHECK(pending_.empty());
    CHECK(lease_.calls.unfinished() == 0);
    const InvocationCounters& counters = lease_.calls.counters();
    CHECK(counters.submitted == submitted_);
    CHECK(counters.succeeded + counters.failed == submitted_);
    // The last of what workers held comes back when they are gone.
    for (std::size_t link = 0; link < links; ++link) {
      if (!lease_.workers[link]->gone) lease_.workers[link]->go_down();
    }
    lease_.progress();
    CHECK(lease_.calls.blocks().live() == 0);
  }

  std::mt19937 random_;
  FakeLease lease_;
  std::vector<Pending> pending_;
  std::uint64_t submitted_ = 0;
  std::uint64_t finished_ = 0;
};

}  // namespace

TEST_CASE("whatever workers do, every call ends once and nothing is shared that is in use") {
  const auto seed = GENERATE(range(1U, 201U));
  INFO("seed " << seed);
  Chaos(seed).run(600);
}
