#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "benchmarks/local_site.hpp"
#include "runtime/base/file_descriptor.hpp"
#include "runtime/control/http_client.hpp"

namespace sublet::bench::harvest {

/// A manager and virtual nodes of this machine, which the hooks of scripts/slurm donate and take back as
/// slurmd has them do it: a process of their own for each job that comes or ends. No Slurm is needed.
class HookedSite {
 public:
  enum class Hook : std::uint8_t { prolog, epilog };

  /// Nodes n1, n2, ... of `cores` cores, which the machine's play in turn. Throws std::runtime_error.
  HookedSite(unsigned nodes, unsigned cores, unsigned grace_ms);
  HookedSite(const HookedSite&) = delete;
  HookedSite& operator=(const HookedSite&) = delete;
  /// Takes all nodes back. Also when this program is killed.
  ~HookedSite();

  /// For a job that has the whole of the node: how long the hook took. Any thread. Throws std::runtime_error
  /// when the hook fails.
  std::chrono::nanoseconds run(Hook hook, const std::string& node) const;
  /// A program that does nothing, started in the same way.
  [[nodiscard]] std::chrono::nanoseconds run_nothing() const;
  [[nodiscard]] const std::vector<std::string>& nodes() const noexcept { return nodes_; }
  [[nodiscard]] std::string url() const { return manager_.url(); }
  /// Workers of each donated node that are ready to be leased, and those that are leased. One thread.
  [[nodiscard]] std::map<std::string, std::pair<unsigned, unsigned>> workers();
  /// Blocks until the node has so many ready and leased workers. Throws std::runtime_error when it does not
  /// come to it.
  void wait_for(const std::string& node, unsigned ready_min, unsigned leased_min);
  [[nodiscard]] std::string logs() const;

 private:
  void install(unsigned cores, unsigned grace_ms) const;
  void start_guard();

  TemporaryDirectory directory_;
  Manager manager_;
  unsigned cores_;
  std::vector<std::string> nodes_;
  std::unique_ptr<control::HttpClient> http_;
  FileDescriptor leash_;  ///< Its end tells the guard that this program has ended.
  pid_t guard_ = -1;
};

}  // namespace sublet::bench::harvest
