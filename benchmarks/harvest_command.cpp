#include <algorithm>
#include <charconv>
#include <cstdio>

#include "benchmarks/command.hpp"
#include "benchmarks/frame/report.hpp"
#include "benchmarks/harvest/hooks.hpp"
#include "benchmarks/harvest/replay.hpp"

namespace sublet::bench {
namespace {

constexpr std::uint64_t nodes_max = 100'000;
constexpr std::uint64_t days_max = 3660;
constexpr std::size_t lengths_max = 16;
constexpr std::uint64_t rounds_max = 1000;
constexpr std::uint64_t cores_max = 1024;
constexpr std::uint64_t grace_ms_max = 60'000;
constexpr std::uint64_t virtual_nodes_max = 64;
constexpr double replay_minutes_max = 24 * 60;
constexpr double seconds_a_minute = 60;
constexpr double minutes_max = 100'000;
constexpr double milliseconds_max = 3'600'000;

void check_number(const char* option, double value, double low, double high) {
  if (value >= low && value <= high) return;
  throw Misuse(std::string(option) + " takes " + std::to_string(low) + " to " + std::to_string(high));
}

void check(const harvest::LiveOptions& site, unsigned rounds) {
  check_range("--rounds", rounds, 1, rounds_max);
  check_range("--cores", site.cores, 1, cores_max);
  check_range("--grace-ms", site.grace_ms, 0, grace_ms_max);
  check_number("--replay", site.minutes, 0, replay_minutes_max);
  check_range("--virtual-nodes", site.nodes, 1, virtual_nodes_max);
  check_number("--busy", site.busy_s, 0.1, 1e6);
  const harvest::ReplayOptions& options = site.gaps;
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

void add_delay(Report& report, const std::string& mode, const std::vector<double>& times_ms,
               const std::vector<double>& nothing_ms) {
  std::printf("%-32s %10.1f %10.1f\n", mode.c_str(), median(times_ms), percentile(times_ms, 1));
  report.add({.bench = "harvest",
              .transport = "",
              .mode = mode,
              .baseline = "bash that does nothing",
              .figures = {{"median_ms", median(times_ms)},
                          {"max_ms", percentile(times_ms, 1)},
                          {"raw_median_ms", median(nothing_ms)},
                          {"rounds", static_cast<double>(times_ms.size())}}});
}

void measure_delays(Report& report, unsigned rounds, const harvest::LiveOptions& site) {
  std::printf("a virtual node of %u cores under the hooks: %u rounds; the grace is %u ms\n", site.cores,
              rounds, site.grace_ms);
  const harvest::HookTimes times = harvest::measure_hooks(rounds, site.cores, site.grace_ms);
  std::printf("%-32s %10s %10s\n", "", "median ms", "max");
  add_delay(report, "bash that does nothing", times.nothing_ms, times.nothing_ms);
  add_delay(report, "prolog, not donated", times.prolog_undonated_ms, times.nothing_ms);
  add_delay(report, "prolog, donated and idle", times.prolog_idle_ms, times.nothing_ms);
  add_delay(report, "prolog, donated and busy", times.prolog_busy_ms, times.nothing_ms);
  add_delay(report, "epilog", times.epilog_ms, times.nothing_ms);
  add_delay(report, "epilog to first call answered", times.first_call_ms, times.nothing_ms);
}

void replay_on_this_machine(Report& report, const harvest::LiveOptions& site) {
  std::printf("%u virtual nodes of %u cores for %.1f min; gaps of %.0f, %.0f, %.0f s, jobs of %.0f s\n",
              site.nodes, site.cores, site.minutes, site.gaps.quartile_low_s, site.gaps.median_s,
              site.gaps.quartile_high_s, site.busy_s);
  const harvest::LiveSurface live = harvest::replay_live(site);
  std::printf("%.2f %% of %.0f idle core-seconds in %llu gaps were leased or ready (%.0f looks a second)\n",
              100 * live.surface.share(), live.surface.idle_s * site.cores,
              static_cast<unsigned long long>(live.surface.gaps), live.looks_per_second);
  std::printf("prologs: median %.1f ms, longest %.1f ms\n", median(live.prolog_ms),
              percentile(live.prolog_ms, 1));
  report.add({.bench = "harvest-replay",
              .transport = "",
              .mode = "hooks",
              .baseline = "",
              .figures = {{"lent_share", live.surface.share()},
                          {"idle_core_s", live.surface.idle_s * site.cores},
                          {"gaps", static_cast<double>(live.surface.gaps)},
                          {"prolog_median_ms", median(live.prolog_ms)},
                          {"prolog_max_ms", percentile(live.prolog_ms, 1)},
                          {"looks_per_second", live.looks_per_second},
                          {"seed", static_cast<double>(site.gaps.seed)}}});
}

void simulate_cluster(Report& report, const harvest::ReplayOptions& replay,
                      const std::vector<std::string>& pilots) {
  std::vector<std::vector<double>> lengths;
  for (const std::string& each : pilots) lengths.push_back(lengths_of(each));
  const std::vector<harvest::Gap> gaps = harvest::make_gaps(replay);
  add(report, replay, "hooks", harvest::replay_hooks(replay, gaps));
  for (std::size_t i = 0; i < pilots.size(); ++i)
    add(report, replay, "pilots of " + pilots[i] + " min", harvest::replay_pilots(replay, gaps, lengths[i]));
}

}  // namespace

int run_harvest(int argc, char** argv) {
  harvest::LiveOptions site;
  harvest::ReplayOptions& replay = site.gaps;
  std::vector<std::string> pilots;
  std::string json;
  unsigned rounds = 0;
  bool simulate = false;
  cxxopts::Options options(
      "sublet-bench harvest",
      "Measures what Slurm's hooks cost a job on a donated node of this machine; with --replay, which share "
      "of "
      "the idle core-seconds is leased or ready to be while jobs come and go on virtual nodes; with "
      "--simulate, the same of a cluster in simulated time, with hooks and with pilot jobs.");
  options.add_options()                                                                                //
      ("rounds", "Of the costs", cxxopts::value(rounds)->default_value("21"))                          //
      ("cores", "Cores of a virtual node", cxxopts::value(site.cores)->default_value("4"))             //
      ("grace-ms", "That a call in flight gets", cxxopts::value(site.grace_ms)->default_value("500"))  //
      ("replay", "Minutes of jobs on virtual nodes, instead",
       cxxopts::value(site.minutes)->default_value("0"))                                      //
      ("virtual-nodes", "Of the replay", cxxopts::value(site.nodes)->default_value("8"))      //
      ("busy", "Mean seconds of its jobs", cxxopts::value(site.busy_s)->default_value("30"))  //
      ("simulate", "A cluster, in simulated time, instead", cxxopts::value(simulate))         //
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
  check(site, rounds);
  for (const std::string& each : pilots) (void)lengths_of(each);
  if (simulate && site.minutes > 0)
    throw Misuse("--replay and --simulate are two measurements: say one of them");
  Report report(json, argc, argv);
  if (simulate) {
    simulate_cluster(report, replay, pilots);
  } else if (site.minutes > 0) {
    replay_on_this_machine(report, site);
  } else {
    measure_delays(report, rounds, site);
  }
  report.write();
  return 0;
}

}  // namespace sublet::bench
