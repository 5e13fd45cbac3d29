#pragma once

#include <sys/types.h>

#include <functional>
#include <vector>

namespace sublet::agent {

/// The process and all that descend from it, without those for which `left_out` holds and theirs. What is
/// born or dies meanwhile may be missing or gone.
[[nodiscard]] std::vector<pid_t> family(pid_t of, const std::function<bool(pid_t)>& left_out);

}  // namespace sublet::agent
