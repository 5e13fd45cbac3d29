#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace sublet::bench {

/// A process that ends with this object: SIGTERM, then SIGKILL after end_max. The kernel sends SIGTERM
/// when this program dies before it.
class Process {
 public:
  /// Throws std::runtime_error when `arguments[0]` cannot be executed. Output goes to `log`.
  Process(const std::vector<std::string>& arguments, const std::filesystem::path& log);
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process();

  [[nodiscard]] bool alive();

 private:
  pid_t pid_ = -1;
};

/// A directory of this program's own, removed with all that is in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
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
  Process manager_;
  std::string url_;
  Process agent_;
};

/// The directory that this program lies in.
[[nodiscard]] std::filesystem::path program_directory();

}  // namespace sublet::bench
