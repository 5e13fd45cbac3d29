#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/base/result.hpp"
#include "runtime/control/sinfo.hpp"

/// What Slurm says of its nodes and jobs, read from the text that its commands print.
namespace sublet::manager::slurm {

using Job = std::uint32_t;
using WallTime = std::chrono::sys_seconds;  ///< Of Slurm's machines: Unix time.

/// Jobs of this name lend their cores themselves: scripts/slurm/pilot.
inline constexpr std::string_view pilot_name = "sublet-pilot";
/// What squeue is asked to print for each job, the one thing that users choose last; times as Unix time.
inline constexpr const char* squeue_format = "%A|%t|%S|%C|%Y|%N|%j";

/// A node with the jobs that concern it.
struct PictureNode {
  control::SinfoNode is;
  std::set<Job> jobs;              ///< That run there and are no pilots.
  std::set<Job> pilots;            ///< That run there.
  std::uint32_t pilot_cpus = 0;    ///< Of these.
  std::optional<WallTime> wanted;  ///< The first start that is planned there.
  Job wanted_by = 0;
};

struct Picture {
  WallTime read;
  std::unordered_map<std::string, PictureNode> nodes;
};

/// @param sinfo  Of `sinfo --json`.
/// @param squeue Of `squeue` with squeue_format.
/// @retval Errc::invalid_argument One of them is not that.
[[nodiscard]] Result<Picture> parse_picture(std::string_view sinfo, std::string_view squeue, WallTime read);

/// "n[1-3,07],gpu1" as names. @retval Errc::invalid_argument It is no such list, or names more than `most`.
[[nodiscard]] Result<std::vector<std::string>> expand_hosts(std::string_view list, std::size_t most);

}  // namespace sublet::manager::slurm
