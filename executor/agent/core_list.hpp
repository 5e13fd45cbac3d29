#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.hpp"

namespace sublet::agent {

/// Numbers and ranges, such as 0-3,8, in the order that they stand there; each below 4096, at most 4096 of
/// them.
/// @retval Errc::invalid_argument It is none, or empty.
[[nodiscard]] Result<std::vector<int>> parse_core_list(std::string_view text);
/// Of ascending numbers; what parse_core_list() reads.
[[nodiscard]] std::string print_core_list(const std::vector<int>& cores);

/// The cores that this process may use, sorted by socket, core and thread, each by its lowest number: the
/// order in which Slurm counts a node's CPUs. `sysfs` is where the system describes them.
[[nodiscard]] std::vector<int> own_cores(const std::string& sysfs = "/sys/devices/system/cpu");

}  // namespace sublet::agent
