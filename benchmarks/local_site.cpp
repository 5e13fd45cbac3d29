#include "benchmarks/local_site.hpp"

#include <chrono>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "runtime/control/api.hpp"

namespace sublet::bench {
namespace {

using namespace std::chrono_literals;

constexpr auto start_max = 20s;
constexpr auto poll_interval = 1ms;
constexpr auto ask_max = 10s;
constexpr auto ready_max = 60s;

std::vector<std::string> agent_words(const SiteShape& shape, const std::string& url,
                                     const std::filesystem::path& state) {
  std::vector<std::string> words{program_directory() / "sublet-agent",
                                 "--manager",
                                 url,
                                 "--state-dir",
                                 state,
                                 "--cores",
                                 std::to_string(shape.workers),
                                 "--warm",
                                 std::to_string(shape.warm),
                                 "--warm-loaded",
                                 std::to_string(shape.warm_loaded),
                                 "--oversubscribe"};
  if (!shape.verbs_address.empty())
    words.insert(words.end(),
                 {"--transports", "verbs", "--verbs-address", shape.verbs_address, "--allow-public"});
  return words;
}

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

LocalSite::LocalSite(const SiteShape& shape)
    : manager_(directory_.path()),
      url_(manager_.url()),
      agent_(agent_words(shape, url_, directory_.path() / "agent"), directory_.path() / "agent.log",
             shape.cores) {}

void LocalSite::wait_until_ready(unsigned workers) {
  if (!http_) http_ = control::HttpClient::create(url_).value();
  const auto end = std::chrono::steady_clock::now() + ready_max;
  unsigned ready = 0;
  while (std::chrono::steady_clock::now() < end) {
    const auto answer = control::body_of(http_->request("GET", "/v1/nodes", "", ask_max)).value();
    const auto nodes = api::from_json<api::Nodes>(answer).value().nodes;
    ready = nodes.empty() ? 0 : nodes.front().workers_ready;
    if (ready >= workers) return;
    std::this_thread::sleep_for(poll_interval);
  }
  throw std::runtime_error(std::to_string(ready) + " of " + std::to_string(workers) +
                           " workers became ready in time");
}

std::string LocalSite::logs() const {
  std::string all;
  for (const char* name : {"manager.log", "agent.log"}) {
    all += std::string("--- ") + name + "\n" + tail_of(directory_.path() / name);
  }
  return all;
}

}  // namespace sublet::bench
