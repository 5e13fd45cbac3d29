#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <sublet/client.hpp>

#include "benchmarks/baselines/verbs_addresses.hpp"
#include "benchmarks/command.hpp"
#include "benchmarks/frame/report.hpp"
#include "benchmarks/frame/rounds.hpp"
#include "benchmarks/local_site.hpp"
#include "runtime/base/file_descriptor.hpp"

namespace sublet::bench {
namespace {

using namespace std::chrono_literals;

constexpr auto wait_max = 60s;
constexpr std::size_t bytes = 64;
constexpr std::size_t arena_bytes = std::size_t{16} << 20;

struct BurstOptions {
  std::string transport;
  std::vector<std::uint32_t> workers;
  std::uint32_t rounds = 0;
  std::vector<std::string> addresses;  ///< Of verbs, as given.
};

struct Times {
  std::vector<double> total_ms;
  std::vector<double> lease_ms;  ///< Until all are connected.
  std::vector<double> calls_ms;  ///< One on each, answered.
  std::vector<double> forks_ms;
};

double milliseconds(Clock::duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

/// A worker that was lost meanwhile is being replaced: there is room again when that is done.
Future submit(Lease& lease, const Buffer& input, Buffer& output) {
  const auto end = Clock::now() + wait_max;
  while (true) {
    auto future = lease.submit(input, output);
    if (future.ok() || future.error().code() != Errc::queue_full || Clock::now() > end)
      return std::move(future).value();
    lease.poll();
  }
}

void run_lease(Site& site, const BurstOptions& options, std::uint32_t workers, Times& times) {
  const auto begun = Clock::now();
  Lease lease = site.lease({.function = "echo@1",
                            .workers = workers,
                            .wait = wait_max,
                            .transports = {.require = {options.transport}},
                            .in_flight = 1,
                            .arena_bytes = arena_bytes})
                    .value();
  const auto leased = Clock::now();
  Buffer input = lease.allocate(bytes).value();
  std::vector<Buffer> outputs;
  std::vector<Future> futures;
  for (std::uint32_t i = 0; i < workers; ++i) {  // Each goes to a worker that has none yet.
    outputs.push_back(lease.allocate(bytes).value());
    futures.push_back(submit(lease, input, outputs.back()));
  }
  for (Future& future : futures) (void)future.wait().value();
  const auto ended = Clock::now();
  times.total_ms.push_back(milliseconds(ended - begun));
  times.lease_ms.push_back(milliseconds(leased - begun));
  times.calls_ms.push_back(milliseconds(ended - leased));
  lease.release().value();
}

/// A process of our own each, forked from here, that answers one message.
void run_forks(std::uint32_t workers, Times& times) {
  const auto begun = Clock::now();
  std::vector<std::pair<pid_t, FileDescriptor>> children;
  std::array<char, bytes> message{};
  for (std::uint32_t i = 0; i < workers; ++i) {
    std::array<int, 2> ends{};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
      throw std::runtime_error(std::string("socketpair: ") + std::strerror(errno));
    FileDescriptor ours(ends[0]);
    const FileDescriptor theirs(ends[1]);
    const pid_t pid = fork();
    if (pid < 0) throw std::runtime_error(std::string("fork: ") + std::strerror(errno));
    if (pid == 0) {
      const ssize_t got = recv(theirs.get(), message.data(), message.size(), MSG_WAITALL);
      _exit(got == bytes && ::send(theirs.get(), message.data(), bytes, MSG_NOSIGNAL) == bytes ? 0 : 1);
    }
    children.emplace_back(pid, std::move(ours));
  }
  for (const auto& [pid, socket] : children) (void)::send(socket.get(), message.data(), bytes, MSG_NOSIGNAL);
  bool answered = true;
  for (const auto& [pid, socket] : children) {
    answered &= recv(socket.get(), message.data(), message.size(), MSG_WAITALL) == bytes;
  }
  times.forks_ms.push_back(milliseconds(Clock::now() - begun));
  for (const auto& [pid, socket] : children) waitpid(pid, nullptr, 0);
  if (!answered) throw std::runtime_error("a forked process did not answer");
}

void add(Report& report, const BurstOptions& options, std::uint32_t workers, const Times& times) {
  const Ratio ratio = ratio_of(times.total_ms, times.forks_ms);
  std::printf("%7u %10.1f %10.1f %10.1f %10.1f %10.1f  %.2f (%.2f-%.2f)\n", workers, median(times.total_ms),
              percentile(times.total_ms, 1), median(times.lease_ms), median(times.calls_ms),
              median(times.forks_ms), ratio.median, ratio.q1, ratio.q3);
  std::fflush(stdout);
  report.add({"burst",
              options.transport,
              "warm",
              bytes,
              "forked processes",
              {{"workers", workers},
               {"rtt_us", 1000 * median(times.total_ms)},
               {"raw_rtt_us", 1000 * median(times.forks_ms)},
               {"ratio", ratio.median},
               {"ratio_q1", ratio.q1},
               {"ratio_q3", ratio.q3},
               {"rounds", options.rounds},
               {"max_us", 1000 * percentile(times.total_ms, 1)},
               {"lease_us", 1000 * median(times.lease_ms)},
               {"calls_us", 1000 * median(times.calls_ms)}}});
}

void measure(const BurstOptions& options, Report& report) {
  const std::uint32_t most = *std::max_element(options.workers.begin(), options.workers.end());
  // Those that have ended still hold their cores for a moment.
  SiteShape shape{.workers = 2 * most + 1, .warm = 1, .warm_loaded = most, .cores = {}};
  if (options.transport == "verbs") shape.verbs_address = choose_verbs_addresses(options.addresses).server;
  LocalSite local(shape);
  try {
    Site site = Site::connect(local.url()).value();
    site.deploy("echo", "1", function_module("echo")).value();
    local.wait_until_ready(1);
    Times first;
    run_lease(site, options, 1, first);  // From now on the function's workers are kept warm.
    std::printf("%7s %10s %10s %10s %10s %10s  %s\n", "workers", "total ms", "max", "lease", "calls", "forks",
                "Sublet : it (quartiles)");
    for (const std::uint32_t workers : options.workers) {
      Times times;
      for (std::uint32_t round = 0; round < options.rounds + 1; ++round) {
        local.wait_until_ready(most + 1);
        Times warm_up;
        run_lease(site, options, workers, round == 0 ? warm_up : times);
        local.wait_until_ready(most + 1);
        run_forks(workers, round == 0 ? warm_up : times);
      }
      add(report, options, workers, times);
    }
  } catch (const std::exception& error) {
    throw std::runtime_error(error.what() + std::string("\n") + local.logs());
  }
}

}  // namespace

int run_burst(int argc, char** argv) {
  BurstOptions burst;
  std::string json;
  cxxopts::Options options(
      "sublet-bench burst",
      "Measures one lease of many warm workers until one call was answered on each, against "
      "as many forked processes that answer one message.");
  options.add_options()                                                                          //
      ("transport", "tcp, shm or verbs", cxxopts::value(burst.transport)->default_value("tcp"))  //
      ("workers", "Workers of the lease, a list",
       cxxopts::value(burst.workers)->default_value("1,16,64,128,256"))                     //
      ("rounds", "Leases of each size", cxxopts::value(burst.rounds)->default_value("11"))  //
      ("verbs-addresses", "CLIENT,SERVER: RDMA devices' addresses; default: those of the first device",
       cxxopts::value(burst.addresses))  //
      ("json", "Write the figures to this file as well", cxxopts::value(json), "FILE");
  if (!parse(options, argc, argv)) return 0;
  check_one_of("--transport", burst.transport, {"tcp", "shm", "verbs"});
  check_range("--rounds", burst.rounds, 1, 1'000);
  for (const std::uint32_t workers : burst.workers) check_range("--workers", workers, 1, 256);
  Report report(json, argc, argv);
  report.set_pinning("none");
  std::printf("burst over %s: one lease, all connected, one call answered on each; %u rounds\n",
              burst.transport.c_str(), burst.rounds);
  measure(burst, report);
  report.write();
  return 0;
}

}  // namespace sublet::bench
