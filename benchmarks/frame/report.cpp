#include "benchmarks/frame/report.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iomanip>
#include <sstream>

#include "benchmarks/command.hpp"
#include "benchmarks/frame/machine.hpp"

namespace sublet::bench {
namespace {

std::string quoted(const std::string& text) {
  std::ostringstream out;
  out << '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out << '\\' << c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out << "\\u" << std::hex << std::setw(4) << std::setfill('0') << static_cast<int>(c) << std::dec;
    } else {
      out << c;
    }
  }
  out << '"';
  return out.str();
}

std::string json_of(const Row& row) {
  std::ostringstream out;
  out << std::setprecision(6) << R"({"bench": )" << quoted(row.bench) << R"(, "transport": )"
      << quoted(row.transport) << R"(, "mode": )" << quoted(row.mode) << R"(, "size_bytes": )"
      << row.size_bytes << R"(, "baseline": )" << quoted(row.baseline);
  for (const auto& [name, value] : row.figures) out << ", " << quoted(name) << ": " << value;
  out << '}';
  return out.str();
}

std::string command_line(int argc, char** argv) {
  std::string text = "sublet-bench";
  for (int i = 0; i < argc; ++i) text += std::string(" ") + argv[i];
  return text;
}

}  // namespace

Report::Report(const std::string& file, int argc, char** argv)
    : file_(file),
      command_(command_line(argc, argv)),
      cpu_before_(stolen_and_all()),
      load_before_(load_average()) {
  if (file_.empty()) return;
  stream_.open(file_);
  if (!stream_)
    throw Misuse("--json " + file_ + ": " + std::strerror(errno) + ": name a file that can be written");
}

void Report::leave_out(const std::string& baseline, const std::string& reason) {
  std::printf("left out: %s: %s\n", baseline.c_str(), reason.c_str());
  left_out_.emplace_back(baseline, reason);
}

void Report::write() {
  if (file_.empty()) return;
  const auto [stolen, all] = stolen_and_all();
  stream_ << "{\"machine\": {";
  for (const auto& [name, value] : machine_facts()) stream_ << quoted(name) << ": " << quoted(value) << ", ";
  stream_ << R"("pinning": )" << quoted(pinning_) << R"(, "load_before": )" << load_before_
          << R"(, "steal_percent": )"
          << (all > cpu_before_.second ? 100 * (stolen - cpu_before_.first) / (all - cpu_before_.second) : 0)
          << "},\n\"command\": " << quoted(command_) << ",\n\"rows\": [";
  for (std::size_t i = 0; i < rows_.size(); ++i) stream_ << (i == 0 ? "\n  " : ",\n  ") << json_of(rows_[i]);
  stream_ << "],\n\"left_out\": [";
  for (std::size_t i = 0; i < left_out_.size(); ++i) {
    stream_ << (i == 0 ? "\n  " : ",\n  ") << R"({"baseline": )" << quoted(left_out_[i].first)
            << R"(, "reason": )" << quoted(left_out_[i].second) << '}';
  }
  stream_ << "]}\n";
  if (!stream_.flush()) throw std::runtime_error("cannot write " + file_);
}

}  // namespace sublet::bench
