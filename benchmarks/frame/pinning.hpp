#pragma once

#include <sched.h>

#include <string>
#include <vector>

namespace sublet::bench {

/// Which cores the two ends of a comparison run on: the same for every side of it.
struct Pinning {
  int client = 0;
  std::vector<int> servers;  ///< All others that this process may use; at least one.

  /// Throws std::runtime_error when this process may use one core only: two ends that poll on one core
  /// measure the scheduler.
  [[nodiscard]] static Pinning choose();
  /// For people: "client on core 0, servers on core 1".
  [[nodiscard]] std::string text() const;
};

/// The calling thread, or process when it has one thread. Throws std::runtime_error.
void pin(const std::vector<int>& cores);

/// The calling thread runs on one core while this lives.
class OnCore {
 public:
  explicit OnCore(int core);
  OnCore(const OnCore&) = delete;
  OnCore& operator=(const OnCore&) = delete;
  ~OnCore();

 private:
  cpu_set_t before_;
};

}  // namespace sublet::bench
