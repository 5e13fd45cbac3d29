#include "benchmarks/command.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>

namespace sublet::bench {

bool parse(cxxopts::Options& options, int argc, char** argv) {
  options.add_options()("h,help", "Print this");
  try {
    const cxxopts::ParseResult given = options.parse(argc, argv);
    if (given.count("help") > 0) {
      std::puts(options.help().c_str());
      return false;
    }
    if (!given.unmatched().empty())
      throw Misuse("unexpected '" + given.unmatched().front() + "'; --help lists what there is");
    return true;
  } catch (const cxxopts::exceptions::exception& error) {
    throw Misuse(error.what());
  }
}

void check_range(const char* option, std::uint64_t value, std::uint64_t low, std::uint64_t high) {
  if (value >= low && value <= high) return;
  throw Misuse(std::string(option) + " takes " + std::to_string(low) + " to " + std::to_string(high) +
               ", not " + std::to_string(value));
}

void check_one_of(const char* option, const std::string& value, const std::vector<std::string>& allowed) {
  if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
  std::string names;
  for (const std::string& name : allowed) names += (names.empty() ? "" : " or ") + name;
  throw Misuse(std::string(option) + " is " + names + ", not '" + value + "'");
}

double percentile(std::vector<double> values, double part) {
  if (values.empty()) return 0;
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(part * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

void write_file(const std::string& file, const std::string& text) {
  if (file.empty()) return;
  std::ofstream stream(file);
  stream << text;
  if (!stream.flush()) throw std::runtime_error("cannot write " + file);
}

}  // namespace sublet::bench
