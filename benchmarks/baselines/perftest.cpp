// The measuring programs of linux-rdma/perftest, run anew in each round.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "benchmarks/baselines/baseline.hpp"
#include "benchmarks/process.hpp"
#include "runtime/base/file_descriptor.hpp"

namespace sublet::bench {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr auto listen_max = 20s;
constexpr auto run_max = 120s;
constexpr auto poll_interval = 2ms;
constexpr unsigned attempts_max = 10;

fs::path find_program(const std::string& name) {
  const char* const path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (access((fs::path(folder) / name).c_str(), X_OK) == 0) return fs::path(folder) / name;
  }
  throw std::runtime_error(name + " is not installed (Debian: perftest)");
}

/// Of whoever asks next, most likely.
std::uint16_t free_port() {
  const FileDescriptor probe(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  socklen_t size = sizeof address;
  auto* const raw = reinterpret_cast<sockaddr*>(&address);
  if (bind(probe.get(), raw, size) != 0 || getsockname(probe.get(), raw, &size) != 0)
    throw std::runtime_error("no free port");
  return ntohs(address.sin_port);
}

bool listened_on(std::uint16_t port) {
  char suffix[8];
  std::snprintf(suffix, sizeof suffix, ":%04X", port);
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream lines(table);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string number, local, remote, state;
      words >> number >> local >> remote >> state;
      if (state == "0A" && local.ends_with(suffix)) return true;
    }
  }
  return false;
}

/// The word at `column` of the line of figures for messages of `bytes`.
std::optional<double> figure_in(const fs::path& output, std::size_t bytes, int column) {
  std::ifstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word != std::to_string(bytes)) continue;
    for (int i = 0; i < column; ++i) words >> word;
    char* end = nullptr;
    const double value = std::strtod(word.c_str(), &end);
    if (end != word.c_str() && std::isfinite(value) && value > 0) return value;
  }
  return {};
}

class Perftest final : public Baseline {
 public:
  Perftest(const BaselineShape& shape, VerbsAddresses addresses, bool bandwidth)
      : cores_(shape.cores), addresses_(std::move(addresses)), bandwidth_(bandwidth) {}

  std::string name() const override { return bandwidth_ ? "ib_write_bw" : "ib_write_lat"; }
  void open() override {
    program_ = find_program(name());
    client_device_ = verbs_device_of(addresses_.client);
    server_device_ = verbs_device_of(addresses_.server);
  }

  std::chrono::nanoseconds run(const Plan& plan, Histogram& times) override {
    for (unsigned attempt = 0; attempt < attempts_max; ++attempt) {
      const std::optional<double> figure = run_once(plan);
      if (!figure) {
        ++repeated_;
        continue;
      }
      constexpr double mib = 1024 * 1024;
      // Its time is of one way. Its bandwidth is the sum of both ways, of which an echo fills either.
      const double call_us =
          bandwidth_ ? static_cast<double>(plan.bytes) / (*figure / 2 * mib) * 1e6 : 2 * *figure;
      const auto call = std::chrono::nanoseconds(std::llround(call_us * 1000));
      times.add(call);
      return call * plan.calls;
    }
    throw std::runtime_error(name() + " gave no figure:\n" + tail_of(directory_.path() / "client") +
                             tail_of(directory_.path() / "server"));
  }

  std::uint32_t repeated() const override { return repeated_; }

 private:
  std::vector<std::string> words(const Plan& plan, const std::string& device, std::uint16_t port) const {
    std::vector<std::string> all{program_,
                                 "--CPU-freq",
                                 "--ib-dev=" + device,
                                 "--size=" + std::to_string(plan.bytes),
                                 "--iters=" + std::to_string(plan.calls),
                                 "--port=" + std::to_string(port)};
    if (bandwidth_) {
      all.insert(all.end(), {"--bidirectional", "--tx-depth=" + std::to_string(plan.window)});
    }
    return all;
  }

  std::optional<double> run_once(const Plan& plan) {
    const fs::path client_output = directory_.path() / "client";
    fs::remove(client_output);
    const std::uint16_t port = free_port();
    Process server(words(plan, server_device_, port), directory_.path() / "server", cores_);
    const auto end = Clock::now() + listen_max;
    while (!listened_on(port)) {
      if (!server.alive() || Clock::now() > end) return {};
      std::this_thread::sleep_for(poll_interval);
    }
    auto of_client = words(plan, client_device_, port);
    of_client.push_back(addresses_.server);
    Process client(of_client, client_output);
    if (!client.wait(run_max) || !server.wait(listen_max)) return {};
    constexpr int typical = 4;  // Bytes, iterations, least, most, typical.
    constexpr int average = 3;  // Bytes, iterations, peak, average.
    return figure_in(client_output, plan.bytes, bandwidth_ ? average : typical);
  }

  std::vector<int> cores_;
  VerbsAddresses addresses_;
  bool bandwidth_;
  fs::path program_;
  std::string client_device_;
  std::string server_device_;
  TemporaryDirectory directory_;
  std::uint32_t repeated_ = 0;
};

}  // namespace

std::unique_ptr<Baseline> make_perftest(const BaselineShape& shape, const VerbsAddresses& addresses,
                                        bool bandwidth) {
  return std::make_unique<Perftest>(shape, addresses, bandwidth);
}

}  // namespace sublet::bench
