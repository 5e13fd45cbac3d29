#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "benchmarks/process.hpp"
#include "runtime/control/http_client.hpp"

namespace sublet::bench {

/// A manager whose state outlives it: it can be killed and started again on the same port.
class Manager {
 public:
  /// Blocks until it listens. Its log is `directory`/manager.log. Throws std::runtime_error, with the
  /// log's end, when it does not.
  explicit Manager(std::filesystem::path directory);

  [[nodiscard]] std::string url() const { return "http://127.0.0.1:" + port_; }
  [[nodiscard]] Process& process() noexcept { return process_; }
  [[nodiscard]] std::filesystem::path log() const { return directory_ / "manager.log"; }
  [[nodiscard]] const std::filesystem::path& directory() const noexcept { return directory_; }
  /// After its end. Returns at once; it will listen on the same port.
  void spawn();
  /// Throws std::runtime_error, with the log's end, when it does not listen in time.
  void wait_until_listening();

 private:
  std::filesystem::path directory_;
  std::string port_ = "0";
  Process process_;
};

/// What a site on this machine lends.
struct SiteShape {
  unsigned workers = 1;      ///< At once; more than the machine has cores share them.
  unsigned warm = 1;         ///< Idle workers without a function.
  unsigned warm_loaded = 1;  ///< Idle workers for each function that was called lately.
  std::vector<int> cores{};  ///< Where agent and workers run; the first worker on the first. Empty: anywhere.
  std::string
      verbs_address{};  ///< Workers listen over verbs there and over nothing else. Empty: the agent's choice.
};

/// A manager and an agent on this machine, from the programs next to this one.
class LocalSite {
 public:
  /// Blocks until the manager listens. Throws std::runtime_error, with the log's end, when it does not.
  explicit LocalSite(const SiteShape& shape);

  [[nodiscard]] const std::string& url() const noexcept { return url_; }
  [[nodiscard]] std::string logs() const;
  /// Blocks until so many idle workers wait for a lease. Throws std::runtime_error when they do not come.
  void wait_until_ready(unsigned workers);

 private:
  TemporaryDirectory directory_;
  Manager manager_;
  std::string url_;
  Process agent_;
  std::unique_ptr<control::HttpClient> http_;
};

}  // namespace sublet::bench
