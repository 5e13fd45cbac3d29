#include "runtime/manager/slurm_orders.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include "runtime/base/limits.hpp"

namespace sublet::manager::slurm {
namespace {

struct Sign {
  const char* state;
  const char* words;
  bool of_pilots;  ///< Also a node's pilot has to leave: it does not run there by its owner's wish.
};
constexpr std::array signs{
    Sign{"DRAIN", "Slurm drains it", true},
    Sign{"DOWN", "Slurm has it down", true},
    Sign{"ERROR", "Slurm has it in error", true},
    Sign{"FAIL", "Slurm has it failing", true},
    Sign{"POWERING_DOWN", "Slurm powers it down", true},
    Sign{"POWERED_DOWN", "Slurm has powered it down", true},
    Sign{"POWER_DOWN", "Slurm powers it down", true},
    Sign{"REBOOT_REQUESTED", "Slurm is about to boot it", true},
    Sign{"REBOOT_ISSUED", "Slurm boots it", true},
    Sign{"REBOOT", "Slurm is about to boot it", true},
    Sign{"MAINTENANCE", "it is in a maintenance reservation of Slurm", false},
    Sign{"MAINT", "it is in a maintenance reservation of Slurm", false},
    Sign{"RESERVED", "it is in a reservation of Slurm", false},
};

/// An agent's name apart.
struct Name {
  std::string node;
  std::optional<Job> pilot;
};

Name parse_name(const std::string& name) {
  const std::size_t colon = name.find(':');
  if (colon == std::string::npos) return {name, std::nullopt};
  Job job = 0;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + colon + 1, end, job);
  // Something else behind the colon: an agent of the whole node, beside others.
  return {name.substr(0, colon), error == std::errc() && stop == end ? std::optional(job) : std::nullopt};
}

/// Whether Slurm has given away what the agent lends.
bool overlaps(const PictureNode& node, const Name& name, const Lent& lent) {
  if (name.pilot) return !node.pilots.contains(*name.pilot);
  if (node.is.states.contains("COMPLETING") || node.jobs.empty()) return false;
  const std::uint32_t of_jobs = node.is.cpus_allocated - std::min(node.pilot_cpus, node.is.cpus_allocated);
  return std::uint64_t{lent.cores} + of_jobs > std::max(node.is.cpus, lent.cores);
}

/// The same job runs there as did when it was suspected first; of a pilot: it was gone then as well.
bool confirmed(const Suspects& before, const std::string& name, const std::set<Job>& jobs) {
  const auto suspect = before.find(name);
  if (suspect == before.end()) return false;
  return std::any_of(jobs.begin(), jobs.end(), [&](Job job) { return suspect->second.contains(job); });
}

lease::SiteOrder order_by_state(const control::SinfoNode& node, bool pilot) {
  for (const Sign& sign : signs) {
    if (!node.states.contains(sign.state) || (pilot && !sign.of_pilots)) continue;
    std::string why = sign.words;
    if (!node.reason.empty()) why += ": " + node.reason;
    return {std::move(why), true, std::nullopt};
  }
  return {};
}

void expect_job(lease::SiteOrder& order, const PictureNode& node, WallTime read, lease::Time now) {
  if (!node.wanted) return;
  const auto away = *node.wanted - read;
  // A plan that has not come true is an old one; what lies that far is nobody's plan.
  if (away < -limits::slurm_plan_late_max || away > limits::lending_max) return;
  order.end = std::max(now + away, now);
  if (order.why.empty()) order.why = "Slurm plans job " + std::to_string(node.wanted_by) + " there";
}

}  // namespace

Verdict judge(const Picture& picture, const Suspects& before, const std::vector<Lent>& nodes,
              lease::Time now) {
  Verdict verdict;
  for (const Lent& lent : nodes) {
    const Name name = parse_name(lent.name);
    const auto found = picture.nodes.find(name.node);
    if (found == picture.nodes.end()) continue;
    const PictureNode& node = found->second;
    lease::SiteOrder order = order_by_state(node.is, name.pilot.has_value());
    expect_job(order, node, picture.read, now);
    if (overlaps(node, name, lent)) {
      const std::set<Job> jobs = name.pilot ? std::set<Job>{*name.pilot} : node.jobs;
      if (confirmed(before, lent.name, jobs)) {
        order = {name.pilot ? "its pilot job " + std::to_string(*name.pilot) + " is over"
                            : "Slurm runs job " + std::to_string(*jobs.begin()) + " on cores that it lends",
                 true, lease::Time{}};
      }
      verdict.suspects.emplace(lent.name, jobs);
    }
    if (!order.why.empty()) verdict.orders.emplace(lent.name, std::move(order));
  }
  return verdict;
}

}  // namespace sublet::manager::slurm
