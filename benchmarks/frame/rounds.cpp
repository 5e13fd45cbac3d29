#include "benchmarks/frame/rounds.hpp"

#include <thread>

#include "benchmarks/command.hpp"
#include "runtime/base/assert.hpp"

namespace sublet::bench {
namespace {

/// On top of the time that the last side's ends stay hot.
constexpr std::chrono::milliseconds settle{2};

}  // namespace

std::vector<Series> run_rounds(const std::vector<Side*>& sides, const Plan& plan, std::uint32_t rounds) {
  std::vector<Series> all(sides.size());
  const auto histogram = std::make_unique<Histogram>();
  for (std::size_t i = 0; i < sides.size(); ++i) all[i].name = sides[i]->name();
  for (std::uint32_t round = 0; round < rounds + 1; ++round) {
    for (std::size_t i = 0; i < sides.size(); ++i) {
      std::this_thread::sleep_for(plan.hot + settle);
      *histogram = {};
      const std::chrono::duration<double> took = sides[i]->run(plan, *histogram);
      if (round == 0) continue;
      all[i].medians_us.push_back(histogram->quantile_us(0.5));
      all[i].calls_per_second.push_back(plan.calls / took.count());
      all[i].times.add(*histogram);
    }
  }
  return all;
}

Ratio ratio_of(const std::vector<double>& ours, const std::vector<double>& theirs) {
  SUBLET_ASSERT(ours.size() == theirs.size());
  std::vector<double> ratios;
  for (std::size_t i = 0; i < ours.size(); ++i) ratios.push_back(ours[i] / theirs[i]);
  return {percentile(ratios, 0.5), percentile(ratios, 0.25), percentile(ratios, 0.75)};
}

}  // namespace sublet::bench
