#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace sublet::bench {

/// What a processor executed between two passes of a mark: user-mode instructions by where they lie, and
/// system calls. A repeated string instruction counts once.
struct Executed {
  std::uint64_t instructions = 0;
  std::uint64_t system_calls = 0;
  std::map<std::string, std::uint64_t> by_file;               ///< "libc.so.6" and the like; "[vdso]".
  std::unordered_map<std::uint64_t, std::uint32_t> by_place;  ///< By offset, of the file that has the mark.
};

/// Tracing is forbidden here.
class TracingRefused : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Executes another process's main thread instruction by instruction with ptrace(2): exact counts on
/// machines without hardware counters. The thread runs some thousand times slower in each pass, and the
/// process's other threads stand still but for short times. x86-64 only.
class Stepper {
 public:
  /// Stops the thread; it goes on when this object ends. Throws TracingRefused with the system's reason.
  explicit Stepper(pid_t process);
  Stepper(const Stepper&) = delete;
  Stepper& operator=(const Stepper&) = delete;
  ~Stepper();

  /// One entry for each pass from the instruction at `offset` of `file` (its last part) to the next time it
  /// is there. Throws std::runtime_error when the process ends, or never comes there.
  [[nodiscard]] std::vector<Executed> passes(const std::string& file, std::uint64_t offset, unsigned count);

 private:
  struct Mapping {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    std::uint64_t base = 0;
    std::string file;
  };
  void read_mappings();
  [[nodiscard]] const Mapping* mapping_of(std::uint64_t address);
  [[nodiscard]] bool is_system_call(std::uint64_t address);
  [[nodiscard]] std::uint64_t where() const;
  static void wait_for_stop(pid_t thread, int wanted);
  static void stop(pid_t thread);
  void hold_others();
  void release_others() noexcept;
  void run_to(std::uint64_t mark);
  void step();
  Executed pass(std::uint64_t mark);

  pid_t process_;
  std::vector<pid_t> others_;
  std::chrono::steady_clock::time_point held_since_;
  std::string marked_;
  std::vector<Mapping> mappings_;
  std::unordered_map<std::uint64_t, bool> system_calls_;
};

}  // namespace sublet::bench
