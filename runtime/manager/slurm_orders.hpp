#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "runtime/lease/node.hpp"
#include "runtime/manager/slurm_picture.hpp"

namespace sublet::manager::slurm {

/// A node of ours, as its agent calls it: Slurm's name of the node, or NODE:JOB when the agent runs inside a
/// job.
struct Lent {
  std::string name;
  std::uint32_t cores = 0;
};

/// Nodes that lend what a job seems to have, with the jobs that ran there then. One picture proves nothing: a
/// job may be in its prolog or epilog.
using Suspects = std::map<std::string, std::set<Job>>;

struct Verdict {
  std::map<std::string, lease::SiteOrder> orders;  ///< By the agent's name; a node without one is free.
  Suspects suspects;                               ///< For the next picture.
};

/// What Slurm wants of our nodes: those that it drains, maintains, reserves or has down are cordoned; one
/// that a job is planned for ends at its start; one that lends what a job has had over two pictures is taken
/// back. Pure. @param before Of the picture before. @param now The site's time at which the picture was read.
[[nodiscard]] Verdict judge(const Picture& picture, const Suspects& before, const std::vector<Lent>& nodes,
                            lease::Time now);

}  // namespace sublet::manager::slurm
