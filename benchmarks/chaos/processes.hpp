#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/file_descriptor.hpp"

/// The processes that a run has started, directly or not: they inherit a mark in their environment, which
/// finds them whoever their parent is by now.
namespace sublet::bench::chaos {

/// Marks this process's environment, so that what it starts from now on is found.
void mark_environment();

struct Marked {
  pid_t pid = 0;
  std::string name;  ///< As the kernel shows it, for example "sublet-worker".
};
/// All but this process. Zombies are left out: they hold nothing but their number.
[[nodiscard]] std::vector<Marked> marked_processes();

/// One process, however its number is used later.
class Handle {
 public:
  Handle() = default;
  explicit Handle(pid_t pid);
  /// Nothing happens when the process has ended.
  void signal(int number) const;

 private:
  FileDescriptor descriptor_;
};

/// Open descriptors of a process; 0 when it is gone.
[[nodiscard]] std::size_t open_files(pid_t pid);
/// For evidence: what they are.
[[nodiscard]] std::string list_open_files(pid_t pid);

}  // namespace sublet::bench::chaos
