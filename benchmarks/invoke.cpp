#include "benchmarks/invoke.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <sublet/client.hpp>

#include "benchmarks/command.hpp"
#include "benchmarks/local_site.hpp"
#include "benchmarks/socket_echo.hpp"

namespace sublet::bench {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto start_max = 20s;

/// Microseconds that each of `calls` runs of `call` took.
template <typename Call>
std::vector<double> times(std::uint32_t calls, const Call& call) {
  std::vector<double> all;
  all.reserve(calls);
  for (std::uint32_t i = 0; i < calls; ++i) {
    const auto started = Clock::now();
    call();
    all.push_back(std::chrono::duration<double, std::micro>(Clock::now() - started).count());
  }
  return all;
}

struct Rounds {
  std::vector<double> medians;
  std::vector<double> p99s;

  void add(const std::vector<double>& round) {
    medians.push_back(percentile(round, 0.5));
    p99s.push_back(percentile(round, 0.99));
  }
};

InvokeFigures measure_size(Lease& lease, SocketEcho& socket, std::size_t bytes,
                           const InvokeOptions& options) {
  Buffer input = lease.allocate(bytes).value();
  Buffer output = lease.allocate(bytes).value();
  std::vector<std::byte> message(bytes, std::byte{0x5A});
  std::copy(message.begin(), message.end(), input.data());
  const auto invoke = [&] {
    if (lease.invoke(input, bytes, output).value() != bytes)
      throw std::runtime_error("a wrong size came back");
  };
  const auto exchange = [&] { socket.exchange(message); };

  Rounds ours;
  Rounds theirs;
  std::vector<double> ratios;
  for (std::uint32_t round = 0; round < options.rounds + 1; ++round) {
    const std::vector<double> invoked = times(options.calls, invoke);
    socket.begin(bytes, options.calls);
    const std::vector<double> exchanged = times(options.calls, exchange);
    if (round == 0) continue;  // Warms caches and wakes whoever sleeps.
    ours.add(invoked);
    theirs.add(exchanged);
    ratios.push_back(ours.medians.back() / theirs.medians.back());
  }
  if (std::memcmp(input.data(), output.data(), bytes) != 0) throw std::runtime_error("wrong bytes came back");
  return {.bytes = bytes,
          .sublet_median_us = percentile(ours.medians, 0.5),
          .sublet_p99_us = percentile(ours.p99s, 0.5),
          .socket_median_us = percentile(theirs.medians, 0.5),
          .socket_p99_us = percentile(theirs.p99s, 0.5),
          .ratio_median = percentile(ratios, 0.5),
          .ratio_low = percentile(ratios, 0.25),
          .ratio_high = percentile(ratios, 0.75)};
}

}  // namespace

std::vector<InvokeFigures> measure_invoke(const InvokeOptions& options) {
  SocketEcho socket;  // Forks, so it comes before everything that has threads.
  const LocalSite local(1);
  try {
    Site site = Site::connect(local.url()).value();
    site.deploy("echo", "1", echo_module()).value();
    Lease lease =
        site.lease({.function = "echo@1", .wait = start_max, .transports = {options.transport}}).value();
    std::vector<InvokeFigures> figures;
    for (const std::size_t bytes : options.sizes)
      figures.push_back(measure_size(lease, socket, bytes, options));
    lease.release().value();
    return figures;
  } catch (const std::exception& error) {
    throw std::runtime_error(error.what() + std::string("\n") + local.logs());
  }
}

}  // namespace sublet::bench
