#include "benchmarks/baselines/baseline.hpp"

#include <cstdio>
#include <stdexcept>

namespace sublet::bench {

void open_all(std::vector<std::unique_ptr<Baseline>>& all, Report& report) {
  std::erase_if(all, [&](const std::unique_ptr<Baseline>& baseline) {
    try {
      baseline->open();
      return false;
    } catch (const std::exception& error) {
      report.leave_out(baseline->name(), error.what());
      return true;
    }
  });
  if (all.empty()) throw std::runtime_error("there is nothing to compare with");
}

void print_repeated(const std::vector<std::unique_ptr<Baseline>>& all) {
  for (const auto& baseline : all) {
    if (baseline->repeated() > 0)
      std::printf("%s gave no figure in %u rounds, which were repeated\n", baseline->name().c_str(),
                  baseline->repeated());
  }
}

}  // namespace sublet::bench
