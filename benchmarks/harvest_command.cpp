#include <charconv>
#include <cstdio>

#include "benchmarks/command.hpp"
#include "benchmarks/frame/report.hpp"
#include "benchmarks/harvest/replay.hpp"

namespace sublet::bench {
namespace {

constexpr std::uint64_t nodes_max = 100'000;
constexpr std::uint64_t days_max = 3660;
constexpr std::size_t lengths_max = 16;
constexpr double seconds_a_minute = 60;
constexpr double minutes_max = 100'000;
constexpr double milliseconds_max = 3'600'000;

void check_number(const char* option, double value, double low, double high) {
  if (value >= low && value <= high) return;
  throw Misuse(std::string(option) + " takes " + std::to_string(low) + " to " + std::to_string(high));
}

void check(const harvest::ReplayOptions& options) {
  check_range("--nodes", options.nodes, 1, nodes_max);
  check_range("--days", options.days, 1, days_max);
  check_range("--queued", options.queued, 1, nodes_max);
  check_number("--median", options.median_s, 1, 1e6);
  check_number("--quartile-low", options.quartile_low_s, 1, options.median_s);
  check_number("--quartile-high", options.quartile_high_s, options.median_s, 1e6);
  check_number("--idle-percent", options.idle_nodes_percent, 0.01, 99);
  check_number("--planned-percent", options.planned_percent, 0, 100);
  check_number("--donate-ms", options.donate_ms, 0, milliseconds_max);
  check_number("--notice-ms", options.notice_ms, 0, milliseconds_max);
  check_number("--pilot-start-ms", options.pilot_start_ms, 0, milliseconds_max);
  check_number("--pass", options.pass_s, 1, minutes_max);
  check_number("--replenish", options.replenish_s, 1, minutes_max);
}

/// "120/30/5" as seconds, the longest first.
std::vector<double> lengths_of(const std::string& text) {
  std::vector<double> lengths_s;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find('/', at), text.size());
    unsigned minutes = 0;
    const auto [stop, error] = std::from_chars(text.data() + at, text.data() + end, minutes);
    const bool descends = lengths_s.empty() || minutes * seconds_a_minute < lengths_s.back();
    if (error != std::errc() || stop != text.data() + end || minutes == 0 || minutes > minutes_max ||
        !descends || lengths_s.size() == lengths_max) {
      throw Misuse("--pilots takes minutes such as 120/30/10, the longest first, not '" + text + "'");
    }
    lengths_s.push_back(minutes * seconds_a_minute);
    at = end + 1;
  }
  return lengths_s;
}

void add(Report& report, const harvest::ReplayOptions& options, const std::string& mode,
         const harvest::Surface& surface) {
  std::printf("%-24s %8.2f %% of %.0f idle node-hours in %llu gaps; %llu pilots\n", mode.c_str(),
              100 * surface.share(), surface.idle_s / 3600, static_cast<unsigned long long>(surface.gaps),
              static_cast<unsigned long long>(surface.pilots));
  report.add({.bench = "harvest-simulated",
              .transport = "",
              .mode = mode,
              .baseline = "",
              .figures = {{"lent_share", surface.share()},
                          {"idle_node_s", surface.idle_s},
                          {"gaps", static_cast<double>(surface.gaps)},
                          {"pilots", static_cast<double>(surface.pilots)},
                          {"nodes", options.nodes},
                          {"days", options.days},
                          {"seed", static_cast<double>(options.seed)},
                          {"planned_percent", options.planned_percent}}});
}

}  // namespace

int run_harvest(int argc, char** argv) {
  harvest::ReplayOptions replay;
  std::vector<std::string> pilots;
  std::string json;
  bool simulate = false;
  cxxopts::Options options("sublet-bench harvest",
                           "Replays the idle gaps of a cluster in simulated time: which share of the idle "
                           "core-seconds is leased or "
                           "ready to be, with hooks and with pilot jobs.");
  options.add_options()                                                                       //
      ("simulate", "In simulated time; nothing else is there yet", cxxopts::value(simulate))  //
      ("seed", "Of the gaps", cxxopts::value(replay.seed)->default_value("1"))                //
      ("nodes", "Nodes", cxxopts::value(replay.nodes)->default_value("2000"))                 //
      ("days", "Days", cxxopts::value(replay.days)->default_value("7"))                       //
      ("quartile-low", "Lower quartile of a node's idle gaps, s",
       cxxopts::value(replay.quartile_low_s)->default_value("62"))                          //
      ("median", "Their median, s", cxxopts::value(replay.median_s)->default_value("124"))  //
      ("quartile-high", "Their upper quartile, s",
       cxxopts::value(replay.quartile_high_s)->default_value("237"))  //
      ("idle-percent", "Nodes that are idle on average",
       cxxopts::value(replay.idle_nodes_percent)->default_value("0.42"))  //
      ("donate-ms", "Hooks: from the epilog to the first answered call",
       cxxopts::value(replay.donate_ms)->default_value("500"))  //
      ("planned-percent", "Gaps whose end Slurm has planned",
       cxxopts::value(replay.planned_percent)->default_value("50"))  //
      ("notice-ms", "Before a planned end nothing is lent",
       cxxopts::value(replay.notice_ms)->default_value("3000"))  //
      ("pilots", "Sets of pilot lengths, minutes",
       cxxopts::value(pilots)->default_value("120,30,10,5,120/30/10/5"), "LIST")                        //
      ("queued", "Pilots of each length that wait", cxxopts::value(replay.queued)->default_value("2"))  //
      ("pass", "Seconds between two looks of Slurm for pilots that fit",
       cxxopts::value(replay.pass_s)->default_value("30"))  //
      ("replenish", "Seconds between two looks of the replenisher",
       cxxopts::value(replay.replenish_s)->default_value("10"))  //
      ("pilot-start-ms", "From a pilot's start to the first answered call",
       cxxopts::value(replay.pilot_start_ms)->default_value("2000"))  //
      ("json", "Write the figures to this file as well", cxxopts::value(json), "FILE");
  if (!parse(options, argc, argv)) return 0;
  if (!simulate) throw Misuse("say --simulate");
  check(replay);
  std::vector<std::vector<double>> lengths;
  for (const std::string& each : pilots) lengths.push_back(lengths_of(each));
  Report report(json, argc, argv);
  const std::vector<harvest::Gap> gaps = harvest::make_gaps(replay);
  add(report, replay, "hooks", harvest::replay_hooks(replay, gaps));
  for (std::size_t i = 0; i < pilots.size(); ++i)
    add(report, replay, "pilots of " + pilots[i] + " min", harvest::replay_pilots(replay, gaps, lengths[i]));
  report.write();
  return 0;
}

}  // namespace sublet::bench
