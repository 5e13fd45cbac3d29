// The replay of idle gaps in simulated time.

#include "benchmarks/harvest/replay.hpp"

#include <algorithm>

#include "tests/catch.hpp"

using namespace sublet::bench::harvest;

namespace {

const std::vector<Gap> gap_of_100s{{10, 110, false}};

}  // namespace

TEST_CASE("gaps have the quartiles and the share of idle nodes that were asked for", "[harvest]") {
  const ReplayOptions options;
  const std::vector<Gap> gaps = make_gaps(options);
  std::vector<double> lengths;
  for (const Gap& gap : gaps) lengths.push_back(gap.end_s - gap.begin_s);
  std::sort(lengths.begin(), lengths.end());
  const auto quartile = [&](std::size_t number) { return lengths[lengths.size() * number / 4]; };
  CHECK(quartile(1) == Approx(options.quartile_low_s).epsilon(0.05));
  CHECK(quartile(2) == Approx(options.median_s).epsilon(0.05));
  CHECK(quartile(3) == Approx(options.quartile_high_s).epsilon(0.05));
  const double idle_nodes = replay_hooks(options, gaps).idle_s / (options.days * 86'400.0);
  CHECK(idle_nodes == Approx(options.nodes * options.idle_nodes_percent / 100).epsilon(0.05));
  const std::vector<Gap> again = make_gaps(options);
  CHECK(again.size() == gaps.size());
  CHECK(again.back().end_s == gaps.back().end_s);
}

TEST_CASE("hooks lose the donation, and the notice of a planned end", "[harvest]") {
  CHECK(replay_hooks({}, gap_of_100s).lent_s == Approx(99.5));
  CHECK(replay_hooks({}, {{10, 110, true}}).lent_s == Approx(96.5));
  CHECK(replay_hooks({}, {{10, 10.2, true}}).lent_s == 0);
}

TEST_CASE("a pilot begins at a pass, fits a planned gap and is preempted in another", "[harvest]") {
  // A pass at 30 s; 80 s are left.
  const Surface preempted = replay_pilots({}, gap_of_100s, {7200});
  CHECK(preempted.pilots == 1);
  CHECK(preempted.lent_s == Approx(78));
  // 60 s from 30 s to its limit, then 20 s of the second one.
  const Surface two = replay_pilots({}, {{10, 110, true}}, {7200, 60});
  CHECK(two.pilots == 2);
  CHECK(two.lent_s == Approx(55 + 15));
}

TEST_CASE("no more pilots begin at once than wait", "[harvest]") {
  ReplayOptions options;
  options.queued = 2;
  const std::vector<Gap> three{{10, 50, false}, {11, 50, false}, {12, 50, false}};
  CHECK(replay_pilots(options, three, {7200}).pilots == 2);
  CHECK(replay_pilots(options, three, {7200, 3600}).pilots == 2 + 1);
}
