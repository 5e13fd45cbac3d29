#pragma once

#include <string>
#include <vector>

#include "benchmarks/frame/report.hpp"
#include "benchmarks/frame/rounds.hpp"

namespace sublet::bench {

/// What all rows of one comparison share.
struct Subject {
  std::string bench;
  std::string transport;
  std::string mode;
};

/// What the ratio to one baseline ought to be.
struct Bar {
  std::string baseline;
  double ratio_max = 0;
};

/// Prints a line for the first side and one for each other, with ratios of the first to it, and adds a row
/// for each other to the report; that of the bar's baseline has "bar" too. print_heads() is the table's first
/// line.
void print_heads();
void add_round_trips(Report& report, const Subject& subject, const Plan& plan,
                     const std::vector<Series>& sides, const Bar& bar);

}  // namespace sublet::bench
