#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "benchmarks/command.hpp"
#include "benchmarks/frame/histogram.hpp"
#include "benchmarks/frame/rounds.hpp"
#include "tests/catch.hpp"

namespace sublet::bench {
namespace {

using std::chrono::nanoseconds;

/// Notes in which order the sides were run.
class NotedSide final : public Side {
 public:
  NotedSide(std::string name, nanoseconds time, std::string& order)
      : name_(std::move(name)), time_(time), order_(order) {}
  std::string name() const override { return name_; }
  nanoseconds run(const Plan& plan, Histogram& times) override {
    order_ += name_;
    for (std::uint32_t i = 0; i < plan.calls; ++i) times.add(time_);
    return plan.calls * time_;
  }

 private:
  std::string name_;
  nanoseconds time_;
  std::string& order_;
};

}  // namespace

TEST_CASE("a histogram's quantiles are those of the times in it") {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> spread(8, 3);
  std::vector<double> times;
  Histogram histogram;
  for (int i = 0; i < 20'000; ++i) {
    const auto time = static_cast<std::int64_t>(spread(random));
    times.push_back(static_cast<double>(time) / 1000);
    histogram.add(nanoseconds(time));
  }
  std::sort(times.begin(), times.end());
  for (const double part : {0.0, 0.25, 0.5, 0.9, 0.99, 0.999}) {
    const double exact = times[static_cast<std::size_t>(part * static_cast<double>(times.size() - 1))];
    INFO(part);
    CHECK(std::abs(histogram.quantile_us(part) - exact) <= exact / 256 + 0.001);
  }
  CHECK(histogram.count() == times.size());
  CHECK(histogram.max_us() == times.back());
}

TEST_CASE("a histogram takes what is out of its range, and none") {
  Histogram histogram;
  CHECK(histogram.quantile_us(0.5) == 0);
  histogram.add(nanoseconds(-5));
  histogram.add(nanoseconds(0));
  CHECK(histogram.max_us() == 0);
  histogram.add(std::chrono::hours(1));
  CHECK(histogram.quantile_us(1) > 60e6);
  CHECK(histogram.count() == 3);
}

TEST_CASE("histograms join") {
  Histogram low;
  Histogram high;
  for (int i = 0; i < 10; ++i) low.add(nanoseconds(100));
  for (int i = 0; i < 30; ++i) high.add(nanoseconds(900));
  low.add(high);
  CHECK(low.count() == 40);
  CHECK(low.quantile_us(0.1) < 0.11);
  CHECK(low.quantile_us(0.5) > 0.89);
  CHECK(low.max_us() == 0.9);
}

TEST_CASE("sides take turns, and a first round does not count") {
  std::string order;
  NotedSide a("A", nanoseconds(2000), order);
  NotedSide b("B", nanoseconds(1000), order);
  const auto series = run_rounds({&a, &b}, {.calls = 10}, 3);
  CHECK(order == "ABABABAB");
  REQUIRE(series.size() == 2);
  CHECK(series[0].medians_us.size() == 3);
  CHECK(series[1].times.count() == 30);
  const Ratio ratio = ratio_of(series[0].medians_us, series[1].medians_us);
  CHECK(std::abs(ratio.median - 2) < 0.01);
}

TEST_CASE("a ratio is the median of the rounds' ratios, not the ratio of medians") {
  const Ratio ratio = ratio_of({1, 10, 100, 12, 8}, {1, 5, 25, 4, 8});
  CHECK(ratio.median == 2);
  CHECK(ratio.q1 == 1);
  CHECK(ratio.q3 == 3);
}

}  // namespace sublet::bench
