#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "benchmarks/process.hpp"

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

/// A manager and an agent on this machine, from the programs next to this one.
class LocalSite {
 public:
  /// Blocks until the manager listens. Throws std::runtime_error, with the log's end, when it does not.
  explicit LocalSite(unsigned workers);

  [[nodiscard]] const std::string& url() const noexcept { return url_; }
  [[nodiscard]] std::string logs() const;

 private:
  TemporaryDirectory directory_;
  Manager manager_;
  std::string url_;
  Process agent_;
};

}  // namespace sublet::bench
