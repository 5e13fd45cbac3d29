#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace sublet::bench {

/// A process that ends with this object: SIGTERM, then SIGKILL after end_max. The kernel sends SIGTERM
/// when this program dies before it.
class Process {
 public:
  Process() = default;
  /// Throws std::runtime_error when `arguments[0]` cannot be executed. Output goes to `log`. It runs on
  /// `cores`; none: on those of this thread.
  Process(const std::vector<std::string>& arguments, const std::filesystem::path& log,
          const std::vector<int>& cores = {});
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;
  ~Process();

  [[nodiscard]] bool alive();
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  /// Nothing happens when it has ended.
  void signal(int number);
  /// SIGKILL, and waits for the end.
  void kill();
  /// False when it is still alive after `time`.
  [[nodiscard]] bool wait(std::chrono::milliseconds time);
  /// Of the process when it has ended, as waitpid() gives it.
  [[nodiscard]] int status() const noexcept { return status_; }

 private:
  void end();

  pid_t pid_ = -1;
  int status_ = 0;
};

/// A directory of this program's own, removed with all that is in it.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(const std::filesystem::path& below = std::filesystem::temp_directory_path());
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  /// From now on it stays.
  const std::filesystem::path& keep() noexcept;

 private:
  std::filesystem::path path_;
  bool kept_ = false;
};

/// The directory that this program lies in.
[[nodiscard]] std::filesystem::path program_directory();
/// A function of the benchmarks, such as "echo", below the build's or the prefix's lib. Throws
/// std::runtime_error.
[[nodiscard]] std::filesystem::path function_module(const std::string& name);
/// The last bytes of a file, such as a log; empty when there is none.
[[nodiscard]] std::string tail_of(const std::filesystem::path& file);

/// CPU time that a process and its threads have used; 0 when there is none such.
[[nodiscard]] std::chrono::nanoseconds cpu_time(pid_t process);

struct MemoryUse {
  std::uint64_t rss_bytes = 0;
  std::uint64_t pss_bytes = 0;  ///< Shared pages divided among those that share them.
};
[[nodiscard]] MemoryUse memory_use(pid_t process);

/// "ext2/ext3/ext4", "tmpfs" or a number: what `path` lies on.
[[nodiscard]] std::string file_system_of(const std::filesystem::path& path);

}  // namespace sublet::bench
