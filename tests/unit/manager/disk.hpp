#pragma once

#include <chrono>

namespace sublet::test {

/// What befalls the disk under this process's databases. While one lives it rules them all, so there is one
/// at a time; it goes before the databases do. Thread safety: any thread.
class Disk {
 public:
  enum class Trouble {
    none,
    stuck_writes,  ///< They wait until the trouble is another one.
    stuck_syncs,
    full,          ///< Writes fail.
    failed_syncs,  ///< Syncs fail: what they were to keep may be lost.
  };

  Disk();
  ~Disk();
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  void meets(Trouble trouble);
  /// False when none was stuck for longer than `most`.
  [[nodiscard]] bool wait_stuck(std::chrono::milliseconds most);
};

}  // namespace sublet::test
