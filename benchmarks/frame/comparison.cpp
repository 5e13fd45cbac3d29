#include "benchmarks/frame/comparison.hpp"

#include <cstdio>
#include <utility>

#include "benchmarks/command.hpp"

namespace sublet::bench {
namespace {

void print_line(const Plan& plan, const Series& side) {
  std::printf("%9zu  %-24s %10.2f %10.2f %10.2f %10.1f", plan.bytes, side.name.c_str(),
              median(side.medians_us), side.times.quantile_us(0.99), side.times.quantile_us(0.999),
              side.times.max_us());
}

}  // namespace

void print_heads() {
  std::printf("%9s  %-24s %10s %10s %10s %10s  %s\n", "bytes", "", "median us", "p99", "p99.9", "max",
              "Sublet : it (quartiles)");
}

void add_round_trips(Report& report, const Subject& subject, const Plan& plan,
                     const std::vector<Series>& sides, const Bar& bar) {
  const Series& ours = sides.front();
  print_line(plan, ours);
  std::printf("\n");
  for (std::size_t i = 1; i < sides.size(); ++i) {
    const Series& raw = sides[i];
    const Ratio ratio = ratio_of(ours.medians_us, raw.medians_us);
    print_line(plan, raw);
    std::printf("  %.3f (%.3f-%.3f)", ratio.median, ratio.q1, ratio.q3);
    const bool barred = raw.name == bar.baseline;
    if (barred) std::printf(" bar %.2f: %s", bar.ratio_max, ratio.median <= bar.ratio_max ? "met" : "missed");
    std::printf("\n");
    Row row{subject.bench,
            subject.transport,
            subject.mode,
            plan.bytes,
            raw.name,
            {{"rtt_us", median(ours.medians_us)},
             {"raw_rtt_us", median(raw.medians_us)},
             {"ratio", ratio.median},
             {"ratio_q1", ratio.q1},
             {"ratio_q3", ratio.q3},
             {"rounds", static_cast<double>(ours.medians_us.size())},
             {"calls", plan.calls},
             {"hot_us", static_cast<double>(plan.hot.count())},
             {"pause_us", static_cast<double>(plan.pause.count())},
             {"p50_us", ours.times.quantile_us(0.5)},
             {"p99_us", ours.times.quantile_us(0.99)},
             {"p999_us", ours.times.quantile_us(0.999)},
             {"max_us", ours.times.max_us()},
             {"raw_p50_us", raw.times.quantile_us(0.5)},
             {"raw_p99_us", raw.times.quantile_us(0.99)},
             {"raw_p999_us", raw.times.quantile_us(0.999)},
             {"raw_max_us", raw.times.max_us()}}};
    if (barred) row.figures.emplace_back("bar", bar.ratio_max);
    report.add(std::move(row));
  }
  std::fflush(stdout);
}

}  // namespace sublet::bench
