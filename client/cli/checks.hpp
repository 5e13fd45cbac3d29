#pragma once

#include <string>
#include <vector>

namespace sublet::cli {

enum class Level { ok, warn, fail };

/// One line of the doctor's.
struct Check {
  std::string what;
  Level level = Level::ok;
  std::string found;
  std::string advice;  ///< What to do; empty when nothing is to be done.
};

/// Versions, processors, cgroups.
void check_machine(std::vector<Check>& checks);
/// Opens each transport and listens on it; says what is not built in.
void check_transports(std::vector<Check>& checks);
/// RDMA devices with their ports and addresses, who may open them, and the locked memory that they need.
void check_verbs(std::vector<Check>& checks);
/// Open files, shared memory.
void check_limits(std::vector<Check>& checks);
/// Whether a manager answers, its version, its state and its clock.
void check_manager(std::vector<Check>& checks, const std::string& url);

}  // namespace sublet::cli
