// Where the microseconds of a call go: user-mode instructions on both sides, counted one by one, and times
// between looks at the clock on both sides; each beside the bare provider's.
#include <sched.h>
#include <unistd.h>
#include <cerrno>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <sublet/client.hpp>
#include <utility>
#include <vector>

#include "benchmarks/anatomy/stepper.hpp"
#include "benchmarks/anatomy/symbols.hpp"
#include "benchmarks/baselines/baseline.hpp"
#include "benchmarks/baselines/peer.hpp"
#include "benchmarks/command.hpp"
#include "benchmarks/frame/pinning.hpp"
#include "benchmarks/frame/report.hpp"
#include "benchmarks/frame/rounds.hpp"
#include "benchmarks/local_site.hpp"

namespace sublet::bench {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

constexpr std::size_t bytes_max = std::size_t{1} << 20;
constexpr std::size_t bytes_min = 64;
constexpr auto start_max = 20s;
constexpr std::chrono::seconds hot_when_traced{30};  // A side that waits for a traced one does not sleep.
constexpr std::chrono::minutes deadline_when_traced{10};
constexpr std::size_t functions_shown = 12;
constexpr std::chrono::microseconds warm_hot{50};
constexpr std::chrono::microseconds warm_pause{2000};

struct AnatomyOptions {
  std::string transport;
  std::string mode;
  std::size_t bytes = 0;
  std::uint32_t passes = 0;
  std::uint32_t rounds = 0;
  std::uint32_t calls = 0;
  VerbsAddresses addresses;  ///< Of verbs.
};

void check(const AnatomyOptions& options) {
  check_one_of("--transport", options.transport, {"tcp", "shm", "verbs"});
  check_one_of("--mode", options.mode, {"hot", "warm"});
  check_range("--size", options.bytes, bytes_min, bytes_max);
  check_range("--passes", options.passes, 1, 1'000);
  check_range("--rounds", options.rounds, 1, 10'000);
  check_range("--calls", options.calls, 1, 1'000'000);
}

std::unique_ptr<Baseline> bare_provider(const AnatomyOptions& options, const std::vector<int>& cores) {
  const BaselineShape shape{.cores = cores, .bytes_max = options.bytes};
  const bool warm = options.mode == "warm";
  if (options.transport == "verbs") return make_verbs(shape, options.addresses, warm);
  if (options.transport == "tcp") return make_fabric_tcp(shape, warm);
  return warm ? make_shared_memory(shape) : make_fabric_shm(shape);
}

// --- Instructions ---------------------------------------------------------------------------------

/// Where a process passes once a call.
struct Mark {
  std::filesystem::path file;
  std::string function;
};

struct Traced {
  std::string name;
  pid_t process = 0;
  Mark mark;
};

std::vector<pid_t> children_of(pid_t process) {
  const std::string id = std::to_string(process);
  std::ifstream stream("/proc/" + id + "/task/" + id + "/children");
  std::vector<pid_t> children;
  for (pid_t child = 0; stream >> child;) children.push_back(child);
  return children;
}

/// The worker below `process` that has worked most: the one that serves.
pid_t busiest_worker_below(pid_t process) {
  pid_t best = 0;
  const std::function<void(pid_t)> look = [&](pid_t at) {
    std::string name;
    std::ifstream("/proc/" + std::to_string(at) + "/comm") >> name;
    if (name == "sublet-worker" && (best == 0 || cpu_time(at) > cpu_time(best))) best = at;
    for (const pid_t child : children_of(at)) look(child);
  };
  look(process);
  if (best == 0) throw std::runtime_error("no worker serves");
  return best;
}

/// The shared library below the build's or the prefix's lib that this program uses as its client.
std::filesystem::path client_library() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const std::size_t at = line.find('/');
    if (at != std::string::npos && line.find("/libsublet.so") != std::string::npos) return line.substr(at);
  }
  return std::filesystem::read_symlink("/proc/self/exe");
}

/// The first core on which it may run.
int core_of(pid_t process) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(process, sizeof set, &set) != 0)
    throw std::runtime_error(std::string("sched_getaffinity: ") + std::strerror(errno));
  int core = 0;
  while (CPU_ISSET(core, &set) == 0) ++core;
  return core;
}

/// The median one: some passes wait, and in some another thread of the process does a part of the work.
Executed usual_pass(const Traced& side, unsigned passes) try {
  const Symbols symbols(side.mark.file);
  const OnCore beside(
      core_of(side.process));  // Both are never busy at once, and the other core has the peer.
  Stepper stepper(side.process);
  auto all = stepper.passes(side.mark.file.filename(), symbols.offset_of(side.mark.function), passes);
  const auto middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
  std::nth_element(all.begin(), middle, all.end(),
                   [](const Executed& a, const Executed& b) { return a.instructions < b.instructions; });
  return *middle;
} catch (const TracingRefused&) {
  throw;
} catch (const std::exception& error) {
  throw std::runtime_error(side.name + ": " + error.what());
}

using Address = std::array<char, 128>;

/// Calls without end, in a process of its own.
std::unique_ptr<Peer> start_caller(const AnatomyOptions& options, int core) {
  return std::make_unique<Peer>(std::vector<int>{core}, [options](const Control& control) {
    const auto url = control.receive<Address>();
    Site site = Site::connect(url.data()).value();
    Lease lease = site.lease({.function = "stamps@1",
                              .wait = start_max,
                              .transports = {.require = {options.transport}},
                              .hot = hot_when_traced})
                      .value();
    const Buffer input = lease.allocate(options.bytes).value();
    Buffer output = lease.allocate(options.bytes).value();
    for (int i = 0; i < 1'000; ++i) lease.invoke(input, options.bytes, output).value();
    say_ready(control);
    while (true) lease.invoke(input, options.bytes, output, {.deadline = deadline_when_traced}).value();
  });
}

/// A pair over the bare provider that exchanges messages without end.
std::unique_ptr<Peer> start_pair(const AnatomyOptions& options, const Pinning& pinning) {
  return std::make_unique<Peer>(std::vector<int>{pinning.client},
                                [options, cores = pinning.servers](const Control& control) {
                                  const auto bare = bare_provider(options, cores);
                                  bare->open();
                                  Histogram unread;
                                  Plan plan{.bytes = options.bytes, .calls = 1'000, .hot = hot_when_traced};
                                  bare->run(plan, unread);
                                  say_ready(control);
                                  plan.calls = 1'000'000'000;
                                  bare->run(plan, unread);
                                });
}

void print_sides(const std::vector<std::pair<std::string, Executed>>& sides) {
  std::vector<std::string> files;
  for (const auto& [name, executed] : sides) {
    for (const auto& [file, count] : executed.by_file) {
      if (std::find(files.begin(), files.end(), file) == files.end()) files.push_back(file);
    }
  }
  std::printf("\n%-28s", "instructions of one call in");
  for (const auto& [name, executed] : sides) std::printf("%16s", name.c_str());
  for (const std::string& file : files) {
    std::printf("\n  %-26s", file.c_str());
    for (const auto& [name, executed] : sides) {
      const auto count = executed.by_file.find(file);
      std::printf("%16llu",
                  count == executed.by_file.end() ? 0ULL : static_cast<unsigned long long>(count->second));
    }
  }
  std::printf("\n  %-26s", "all");
  for (const auto& [name, executed] : sides)
    std::printf("%16llu", static_cast<unsigned long long>(executed.instructions));
  std::printf("\n%-28s", "system calls");
  for (const auto& [name, executed] : sides)
    std::printf("%16llu", static_cast<unsigned long long>(executed.system_calls));
  std::printf("\n");
}

void print_functions(const std::string& name, const Executed& executed, const Mark& mark) {
  const Symbols symbols(mark.file);
  std::map<std::string, std::uint64_t> functions;
  for (const auto& [offset, count] : executed.by_place) functions[symbols.function_at(offset)] += count;
  std::vector<std::pair<std::uint64_t, std::string>> sorted;
  for (const auto& [function, count] : functions) sorted.emplace_back(count, function);
  std::sort(sorted.rbegin(), sorted.rend());
  if (sorted.size() > functions_shown) sorted.resize(functions_shown);
  std::printf("\n%s, by function of %s\n", name.c_str(), mark.file.filename().c_str());
  for (const auto& [count, function] : sorted)
    std::printf("  %6llu  %s\n", static_cast<unsigned long long>(count), function.c_str());
}

void add_figures(Row& row, const std::string& side, const Executed& executed) {
  row.figures.emplace_back(side + "_instructions", static_cast<double>(executed.instructions));
  row.figures.emplace_back(side + "_system_calls", static_cast<double>(executed.system_calls));
}

void count_instructions(const AnatomyOptions& options, const Pinning& pinning, const LocalSite& local,
                        Row& row) {
  const auto caller = start_caller(options, pinning.client);
  Address url{};
  local.url().copy(url.data(), url.size() - 1);
  caller->control().send(url);
  caller->wait_until_ready();
  const std::filesystem::path own = std::filesystem::read_symlink("/proc/self/exe");
  std::vector<Traced> sides{{"client", caller->pid(), {client_library(), "sublet::LeaseState::submit"}},
                            {"worker",
                             busiest_worker_below(getpid()),
                             {program_directory() / "sublet-worker", "sublet::worker::Module::call"}}};
  std::vector<std::pair<std::string, Executed>> counted;
  for (const Traced& side : sides) counted.emplace_back(side.name, usual_pass(side, options.passes));
  const auto pair = start_pair(options, pinning);
  pair->wait_until_ready();
  const bool verbs = options.transport == "verbs";
  const Mark mark{own, verbs ? "sublet::bench::VerbsEnd::write" : "sublet::bench::FabricEnd::write"};
  for (const Traced& side :
       {Traced{"raw_client", pair->pid(), mark}, Traced{"raw_peer", children_of(pair->pid()).at(0), mark}})
    counted.emplace_back(side.name, usual_pass(side, options.passes));
  print_sides(counted);
  for (std::size_t i = 0; i < sides.size(); ++i)
    print_functions(counted[i].first, counted[i].second, sides[i].mark);
  for (const auto& [name, executed] : counted) add_figures(row, name, executed);
}

// --- Times ----------------------------------------------------------------------------------------

/// The steps of a call, each between two looks at the clock, which all processes of a machine share.
class SteppedSide final : public Side {
 public:
  static constexpr std::array steps{"submit", "there", "function", "back"};

  explicit SteppedSide(Lease& lease) : lease_(lease) {}
  std::string name() const override { return "Sublet"; }
  nanoseconds run(const Plan& plan, Histogram& times) override {
    const Buffer input = lease_.allocate(plan.bytes).value();
    Buffer output = lease_.allocate(plan.bytes).value();
    return time_calls(plan, times, [&] {
      const auto begun = Clock::now();
      Future future = lease_.submit(input, plan.bytes, output).value();
      const auto submitted = Clock::now();
      future.wait().value();
      const auto ended = Clock::now();
      std::array<std::int64_t, 2> stamps{};
      std::memcpy(stamps.data(), output.data(), sizeof stamps);
      const Clock::time_point entered{nanoseconds(stamps[0])};
      const Clock::time_point left{nanoseconds(stamps[1])};
      histograms_[0].add(submitted - begun);
      histograms_[1].add(std::max(nanoseconds(0), nanoseconds(entered - submitted)));
      histograms_[2].add(left - entered);
      histograms_[3].add(ended - left);
    });
  }
  [[nodiscard]] const Histogram& step(std::size_t index) const { return histograms_.at(index); }

 private:
  Lease& lease_;
  std::array<Histogram, steps.size()> histograms_;
};

void time_steps(const AnatomyOptions& options, const Pinning& pinning, const LocalSite& local, Baseline& bare,
                Row& row) {
  // Nobody sleeps while calls come, so long as one takes less than this. Emulated verbs are slow.
  const std::chrono::microseconds hot = options.transport == "verbs" ? 100ms : 5ms;
  Site site = Site::connect(local.url()).value();
  const bool warm = options.mode == "warm";
  Plan plan{.bytes = options.bytes, .warm_up = options.calls / 10, .calls = options.calls, .hot = hot};
  if (warm) {
    plan.hot = warm_hot;
    plan.pause = warm_pause;
  }
  Lease lease = site.lease({.function = "stamps@1",
                            .wait = start_max,
                            .transports = {.require = {options.transport}},
                            .hot = plan.hot})
                    .value();
  const OnCore here(pinning.client);
  const auto ours = std::make_unique<SteppedSide>(lease);
  const auto series = run_rounds({ours.get(), &bare}, plan, options.rounds);
  std::printf("\n%-28s%10s%10s\n", "microseconds of one call", "p50", "p99");
  for (std::size_t i = 0; i < SteppedSide::steps.size(); ++i) {
    const Histogram& times = ours->step(i);
    std::printf("  %-26s%10.3f%10.3f\n", SteppedSide::steps.at(i), times.quantile_us(0.5),
                times.quantile_us(0.99));
    row.figures.emplace_back(std::string(SteppedSide::steps.at(i)) + "_us", times.quantile_us(0.5));
  }
  for (const Series& side : series) {
    std::printf("  %-26s%10.3f%10.3f\n", (side.name + ", round trip").c_str(), side.times.quantile_us(0.5),
                side.times.quantile_us(0.99));
  }
  row.figures.emplace_back("rtt_us", median(series[0].medians_us));
  row.figures.emplace_back("raw_rtt_us", median(series[1].medians_us));
  row.figures.emplace_back("ratio", ratio_of(series[0].medians_us, series[1].medians_us).median);
  lease.release().value();
}

}  // namespace

int run_anatomy(int argc, char** argv) {
  AnatomyOptions anatomy;
  std::string json;
  std::vector<std::string> addresses;
  cxxopts::Options options("sublet-bench anatomy",
                           "Shows where a call's time goes: user-mode instructions and system calls on both "
                           "sides, counted by single steps, and times between looks at the clock.");
  options.add_options()                                                                            //
      ("transport", "tcp, shm or verbs", cxxopts::value(anatomy.transport)->default_value("tcp"))  //
      ("mode", "hot: both ends poll; warm: both sleep between calls, times only",
       cxxopts::value(anatomy.mode)->default_value("hot"))                                       //
      ("size", "Bytes of input and output", cxxopts::value(anatomy.bytes)->default_value("64"))  //
      ("passes", "Calls to step through on each side; the median one counts",
       cxxopts::value(anatomy.passes)->default_value("20"))                                     //
      ("rounds", "Rounds of timed calls", cxxopts::value(anatomy.rounds)->default_value("11"))  //
      ("calls", "Timed calls a round", cxxopts::value(anatomy.calls)->default_value("1000"))    //
      ("verbs-addresses", "CLIENT,SERVER: RDMA devices' addresses; default: those of the first device",
       cxxopts::value(addresses))  //
      ("json", "Write the figures to this file as well", cxxopts::value(json), "FILE");
  if (!parse(options, argc, argv)) return 0;
  check(anatomy);
  if (anatomy.transport == "verbs") anatomy.addresses = choose_verbs_addresses(addresses);
  Report report(json, argc, argv);
  const Pinning pinning = Pinning::choose();
  report.set_pinning(pinning.text());
  std::printf("echo over %s, %zu bytes, one in flight; %s\n", anatomy.transport.c_str(), anatomy.bytes,
              pinning.text().c_str());
  const LocalSite local({.workers = 1, .cores = pinning.servers, .verbs_address = anatomy.addresses.server});
  try {
    Site::connect(local.url()).value().deploy("stamps", "1", function_module("stamps")).value();
    Row row{.bench = "anatomy",
            .transport = anatomy.transport,
            .mode = anatomy.mode,
            .size_bytes = anatomy.bytes,
            .figures = {{"rounds", anatomy.rounds}}};
    try {
      if (anatomy.mode == "hot") count_instructions(anatomy, pinning, local, row);
    } catch (const TracingRefused& refused) {
      report.leave_out("instructions", refused.what());
    }
    const auto bare = bare_provider(anatomy, pinning.servers);
    bare->open();
    row.baseline = bare->name();
    time_steps(anatomy, pinning, local, *bare, row);
    report.add(std::move(row));
  } catch (const std::exception& error) {
    throw std::runtime_error(error.what() + std::string("\n") + local.logs());
  }
  report.write();
  return 0;
}

}  // namespace sublet::bench
