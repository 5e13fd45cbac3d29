#include "benchmarks/chaos/schedule.hpp"

#include <array>
#include <random>

#include "runtime/base/limits.hpp"

namespace sublet::bench::chaos {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds gap_min{100};
constexpr milliseconds gap_max{1'500};
constexpr milliseconds away_short_max{1'500};
// Longer than any limit on silence, so that others must have given up before the return.
constexpr milliseconds away_long_min{limits::node_silent_max + milliseconds(1'000)};
constexpr milliseconds away_long_max{limits::node_silent_max + milliseconds(3'000)};

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : random_(seed) {}

  std::uint32_t below(std::uint32_t bound) {
    return std::uniform_int_distribution<std::uint32_t>(0, bound - 1)(random_);
  }
  milliseconds between(milliseconds low, milliseconds high) {
    return milliseconds(std::uniform_int_distribution<milliseconds::rep>(low.count(), high.count())(random_));
  }

 private:
  std::mt19937_64 random_;
};

Act make_act(Dice& dice) {
  // Weights by repetition.
  constexpr std::array roles{Role::manager, Role::manager, Role::agent,  Role::agent,
                             Role::agent,   Role::client,  Role::client, Role::worker,
                             Role::worker,  Role::worker,  Role::worker, Role::worker_template};
  constexpr std::array deeds{Deed::kill, Deed::kill, Deed::kill, Deed::pause, Deed::pause, Deed::end};
  Act act{.deed = deeds.at(dice.below(deeds.size())), .role = roles.at(dice.below(roles.size()))};
  act.which = dice.below(1U << 16);
  const bool lasting = dice.below(4) == 0;
  act.time =
      lasting ? dice.between(away_long_min, away_long_max) : dice.between(milliseconds(0), away_short_max);
  return act;
}

const char* name(Role role) {
  constexpr std::array names{"manager", "agent", "client", "worker", "template"};
  return names.at(static_cast<std::size_t>(role));
}

const char* name(Deed deed) {
  constexpr std::array names{"kill", "pause", "end"};
  return names.at(static_cast<std::size_t>(deed));
}

}  // namespace

std::vector<Act> make_schedule(std::uint64_t seed, milliseconds length) {
  Dice dice(seed);
  std::vector<Act> acts;
  for (milliseconds at = dice.between(gap_min, gap_max); at < length; at += dice.between(gap_min, gap_max)) {
    acts.push_back(make_act(dice));
    acts.back().at = at;
  }
  return acts;
}

std::string text_of(const Act& act) {
  return std::string(name(act.deed)) + " " + name(act.role) + " " + std::to_string(act.which) + " for " +
         std::to_string(act.time.count()) + " ms";
}

}  // namespace sublet::bench::chaos
