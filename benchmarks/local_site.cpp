#include "benchmarks/local_site.hpp"

#include <chrono>
#include <fstream>
#include <stdexcept>
#include <thread>

namespace sublet::bench {
namespace {

using namespace std::chrono_literals;

constexpr auto start_max = 20s;
constexpr auto poll_interval = 1ms;

}  // namespace

Manager::Manager(std::filesystem::path directory) : directory_(std::move(directory)) {
  spawn();
  wait_until_listening();
}

void Manager::spawn() {
  const std::filesystem::path port_file = directory_ / "port";
  std::filesystem::remove(port_file);
  process_ = Process({program_directory() / "sublet-manager", "--port", port_, "--port-file", port_file,
                      "--state-dir", directory_ / "manager"},
                     log());
}

void Manager::wait_until_listening() {
  const auto end = std::chrono::steady_clock::now() + start_max;
  while (process_.alive() && std::chrono::steady_clock::now() < end) {
    std::ifstream stream(directory_ / "port");
    std::string port;
    if (std::getline(stream, port) && !port.empty()) {
      port_ = port;
      return;
    }
    std::this_thread::sleep_for(poll_interval);
  }
  throw std::runtime_error("the manager did not start:\n" + tail_of(log()));
}

LocalSite::LocalSite(unsigned workers)
    : manager_(directory_.path()),
      url_(manager_.url()),
      agent_({program_directory() / "sublet-agent", "--manager", url_, "--state-dir",
              directory_.path() / "agent", "--cores", std::to_string(workers), "--warm",
              std::to_string(workers), "--oversubscribe"},
             directory_.path() / "agent.log") {}

std::string LocalSite::logs() const {
  std::string all;
  for (const char* name : {"manager.log", "agent.log"}) {
    all += std::string("--- ") + name + "\n" + tail_of(directory_.path() / name);
  }
  return all;
}

}  // namespace sublet::bench
