#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.hpp"

namespace sublet::control {

/// A node as Slurm's `sinfo --json` shows it.
struct SinfoNode {
  std::string name;
  std::set<std::string> states;  ///< State and flags in capital letters, such as IDLE and DRAIN.
  std::uint32_t cpus = 0;
  std::uint32_t cpus_allocated = 0;
  std::string reason;  ///< Printable, shortened; whoever drained the node wrote it.
};

/// Takes what Slurm 22.05 writes and what later versions write in the same places: a state as a list, a
/// number as {"set": true, "number": 4}. Members that are not needed may be anything.
/// @param nodes_max More nodes are refused.
/// @retval Errc::invalid_argument It is not that; the text says where.
[[nodiscard]] Result<std::vector<SinfoNode>> parse_sinfo(std::string_view json, std::size_t nodes_max);

}  // namespace sublet::control
