#include "benchmarks/chaos/run.hpp"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <stdexcept>
#include <sublet/client.hpp>
#include <thread>

#include "benchmarks/chaos/judge.hpp"
#include "benchmarks/chaos/site.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/control/http_client.hpp"

namespace sublet::bench::chaos {
namespace {

using namespace std::chrono_literals;

constexpr auto tick_interval = 5ms;
constexpr auto start_max = 30s;
constexpr auto warm_up = 3s;
constexpr auto finish_max = 40s;  // A call's deadline, a lease's wait and a request's, and time to spare.
constexpr auto settle_max = 60s;  // A node that was silent, on probation or a lease that must run out first.
constexpr auto stop_max = 20s;
constexpr auto stable = 1s;
constexpr auto request_max = 5s;
constexpr std::size_t violations_shown = 40;

/// The module lies below the build's or the prefix's lib.
std::filesystem::path chaos_module() {
  for (const char* const place : {"../lib/sublet/chaos.so", "../lib/chaos.so"}) {
    if (auto path = program_directory() / place; std::filesystem::exists(path)) return path;
  }
  throw std::runtime_error("chaos.so is not where this program looks for it: build or install it first");
}

class Run {
 public:
  explicit Run(const ChaosOptions& options)
      : options_(options),
        directory_("/var/tmp"),
        site_({options.agents, options.clients, options.seed}, directory_.path()) {}

  ChaosReport go() {
    start();
    warm();
    const auto length = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::duration<double, std::ratio<60>>(options_.minutes));
    torment(make_schedule(options_.seed, length), length);
    calm();
    judge();
    stop();
    ChaosReport report{.summary = summary_, .acts = acts_, .history = site_.history()};
    report.violations = std::move(violations_);
    report.violations.insert(report.violations.end(), site_.faults().begin(), site_.faults().end());
    if (report.violations.size() > violations_shown) {
      const std::size_t more = report.violations.size() - violations_shown;
      report.violations.resize(violations_shown);
      report.violations.push_back("and " + std::to_string(more) + " more");
    }
    if (!report.violations.empty()) {
      report.evidence =
          evidence_ + site_.logs() + "the run's files are kept in " + directory_.keep().string();
    }
    return report;
  }

 private:
  template <typename T>
  Result<T> get(const std::string& path) {
    if (!http_) {
      auto made = control::HttpClient::create(site_.url());
      if (!made) return made.error();
      http_ = *std::move(made);
    }
    const auto body = control::body_of(http_->request("GET", path, {}, request_max));
    if (!body) return body.error();
    return api::from_json<T>(*body);
  }

  /// Ticks until `holds`; false when it does not in time.
  template <typename Condition>
  bool wait_until(std::chrono::milliseconds time, const Condition& holds) {
    for (const TimePoint end = SteadyClock::now() + time; SteadyClock::now() < end;) {
      if (holds()) return true;
      std::this_thread::sleep_for(tick_interval);
    }
    return false;
  }

  /// Why the site is not empty yet; nothing when it is.
  std::string not_quiet() {
    const auto leases = get<api::Leases>("/v1/leases");
    const auto nodes = get<api::Nodes>("/v1/nodes");
    if (!leases) return "GET /v1/leases: " + leases.error().message();
    if (!nodes) return "GET /v1/nodes: " + nodes.error().message();
    for (const api::LeaseInfo& lease : leases->leases) {
      if (lease.state == "active") return "lease " + std::to_string(lease.lease) + " is still active";
    }
    if (nodes->nodes.size() != options_.agents) {
      return std::to_string(nodes->nodes.size()) + " nodes are known, not " + std::to_string(options_.agents);
    }
    for (const api::NodeInfo& node : nodes->nodes) {
      const bool empty = node.cores_leased == 0 && node.memory_leased == 0 && node.workers_serving == 0;
      if (!empty || node.state != "up" || node.workers_ready < 2) {
        return "node " + node.name + " is " + node.state + " with " + std::to_string(node.cores_leased) +
               " cores leased, " + std::to_string(node.workers_serving) + " workers serving and " +
               std::to_string(node.workers_ready) + " ready";
      }
    }
    return "";
  }

  bool wait_quiet(std::chrono::milliseconds time) {
    std::string last;
    if (wait_until(time, [&] { return (last = not_quiet()).empty(); })) return true;
    violations_.push_back("the site does not become empty: " + last);
    return false;
  }

  void start() {
    mark_environment();
    site_.start_manager_and_agents();
    auto site = sublet::Site::connect(site_.url()).value();
    site.deploy("chaos", "1", chaos_module()).value();
    if (!wait_quiet(start_max)) throw std::runtime_error("the site did not start\n" + site_.logs());
  }

  /// What is open when all have worked and nothing is going on.
  void warm() {
    site_.start_clients();
    wait_until(warm_up, [] { return false; });
    site_.finish_clients(finish_max);
    if (!site_.faults().empty() || !wait_quiet(settle_max))
      throw std::runtime_error("the site did not serve before any chaos\n" + site_.logs());
    TimePoint since = SteadyClock::now();
    wait_until(settle_max, [&] {
      const std::size_t manager = site_.manager_files();
      const std::size_t agent = site_.agent_files();
      if (manager != manager_files_ || agent != agent_files_) since = SteadyClock::now();
      manager_files_ = manager;
      agent_files_ = agent;
      return SteadyClock::now() - since > stable;
    });
  }

  void torment(const std::vector<Act>& schedule, std::chrono::milliseconds length) {
    site_.start_clients();
    const TimePoint begun = SteadyClock::now();
    auto next = schedule.begin();
    wait_until(length, [&] {
      site_.tick();
      for (; next != schedule.end() && SteadyClock::now() - begun >= next->at; ++next) {
        site_.perform(*next);
        ++acts_;
      }
      return false;
    });
    site_.mend();
    wait_until(settle_max, [&] {
      site_.tick();
      return site_.whole();
    });
  }

  void calm() {
    site_.finish_clients(finish_max);
    wait_quiet(settle_max);
    const bool closed = wait_until(settle_max, [&] {
      return site_.manager_files() <= manager_files_ && site_.agent_files() <= agent_files_;
    });
    if (closed) return;
    violations_.push_back("descriptors are left: the manager has " + std::to_string(site_.manager_files()) +
                          " (" + std::to_string(manager_files_) + " before), an agent " +
                          std::to_string(site_.agent_files()) + " (" + std::to_string(agent_files_) + ")");
    evidence_ += "open files:\n" + site_.list_files();
  }

  void judge() {
    Tally tally = judge_calls(site_.runs());
    violations_.insert(violations_.end(), tally.violations.begin(), tally.violations.end());
    summary_ = summary_of(tally);
    if (tally.outcomes.at(static_cast<std::size_t>(Outcome::ok)) == 0)
      violations_.emplace_back("no call came to its end at all");
    std::vector<std::string> wrong;
    wait_until(settle_max, [&] {
      const auto usage = get<api::Usage>("/v1/usage?by=lease");
      wrong = usage ? judge_usage(*usage, tally.leases)
                    : std::vector<std::string>{"GET /v1/usage: " + usage.error().message()};
      return wrong.empty();
    });
    violations_.insert(violations_.end(), wrong.begin(), wrong.end());
  }

  void stop() {
    http_.reset();
    if (!site_.stop_all(stop_max))
      violations_.emplace_back("the manager or an agent does not end on SIGTERM");
    std::vector<Marked> left;
    wait_until(stop_max, [&] { return (left = marked_processes()).empty(); });
    for (const Marked& one : left) {
      violations_.push_back("process " + std::to_string(one.pid) + " (" + one.name + ") is left");
      Handle(one.pid).signal(SIGKILL);
    }
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory_.path())) {
      if (entry.is_socket()) violations_.push_back("socket " + entry.path().string() + " is left");
    }
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", none)) {
      if (entry.path().filename().string().find("sublet") != std::string::npos)
        violations_.push_back("shared memory " + entry.path().string() + " is left");
    }
  }

  const ChaosOptions& options_;
  TemporaryDirectory directory_;
  Site site_;
  std::unique_ptr<control::HttpClient> http_;
  std::size_t manager_files_ = 0;
  std::size_t agent_files_ = 0;
  std::size_t acts_ = 0;
  std::string summary_;
  std::string evidence_;
  std::vector<std::string> violations_;
};

}  // namespace

ChaosReport run_chaos(const ChaosOptions& options) {
  return Run(options).go();
}

}  // namespace sublet::bench::chaos
