#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace sublet::bench {

/// One line of what was measured. `figures` join the fixed members in the JSON, in this order.
struct Row {
  std::string bench;
  std::string transport;
  std::string mode;
  std::size_t size_bytes = 0;
  std::string baseline;
  std::vector<std::pair<std::string, double>> figures;
};

/// What tools read: {"machine": {...}, "command": "...", "rows": [...], "left_out": [...]}.
class Report {
 public:
  /// Opens `file`, so that a wrong name is told before the measuring; empty: write() does nothing. Throws
  /// Misuse. `argv[0]` is the subcommand.
  Report(const std::string& file, int argc, char** argv);

  void add(Row row) { rows_.push_back(std::move(row)); }
  /// Of the placement of the processes; for people and for "machine".
  void set_pinning(const std::string& text) { pinning_ = text; }
  /// A baseline that cannot run here. Printed, too.
  void leave_out(const std::string& baseline, const std::string& reason);
  [[nodiscard]] const std::vector<Row>& rows() const noexcept { return rows_; }
  /// Throws std::runtime_error.
  void write();

 private:
  std::string file_;
  std::ofstream stream_;
  std::string command_;
  std::string pinning_;
  std::pair<double, double> cpu_before_;  ///< Stolen and all.
  double load_before_;
  std::vector<Row> rows_;
  std::vector<std::pair<std::string, std::string>> left_out_;
};

}  // namespace sublet::bench
