#pragma once

#include <cstdint>
#include <cxxopts.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

/// What the subcommands of sublet-bench have in common.
namespace sublet::bench {

/// The command line is wrong: exit status 2.
class Misuse : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Reads the command line into the variables that `options` names, --help included. False when it has
/// printed the help instead. Throws Misuse.
[[nodiscard]] bool parse(cxxopts::Options& options, int argc, char** argv);
/// Throws Misuse unless low <= value <= high.
void check_range(const char* option, std::uint64_t value, std::uint64_t low, std::uint64_t high);

/// Throws Misuse unless `value` is one of `allowed`.
void check_one_of(const char* option, const std::string& value, const std::vector<std::string>& allowed);

/// The value that `part` (0 to 1) of the values lie below; 0 of none.
[[nodiscard]] double percentile(std::vector<double> values, double part);
[[nodiscard]] inline double median(const std::vector<double>& values) {
  return percentile(values, 0.5);
}

/// `text` to the file; throws std::runtime_error. Nothing for an empty name.
void write_file(const std::string& file, const std::string& text);

// Each is the whole of a subcommand: argv[0] is its name. The exit status; throws std::exception.
int run_invoke(int argc, char** argv);
int run_peers(int argc, char** argv);
int run_pipeline(int argc, char** argv);
int run_start(int argc, char** argv);
int run_burst(int argc, char** argv);
int run_anatomy(int argc, char** argv);
int run_mix(int argc, char** argv);
int run_lease(int argc, char** argv);
int run_scale(int argc, char** argv);
int run_harvest(int argc, char** argv);
int run_chaos(int argc, char** argv);
int run_chaos_client(int argc, char** argv);

}  // namespace sublet::bench
