// The part of Service that does what Slurm wants of the nodes.

#include "runtime/base/limits.hpp"
#include "runtime/base/log.hpp"
#include "runtime/manager/service.hpp"

namespace sublet::manager {

void Service::see_slurm(Result<slurm::Picture> seen) {
  metrics_.count_slurm_look(seen.ok());
  if (!seen) {
    if (!slurm_.failing) {
      log::warning("cannot see what Slurm wants: " + seen.error().message() +
                   "; what it last said holds for " + std::to_string(limits::slurm_picture_max.count()) +
                   " s");
    }
    slurm_.failing = true;
    return settle();
  }
  if (std::exchange(slurm_.failing, false)) log::info("Slurm answers again");
  slurm_.seen_at = steady_();
  slurm_.picture_time = now();
  slurm_.picture = *std::move(seen);
  std::vector<slurm::Lent> lent;
  for (const auto& [id, node] : table_.state()) {
    if (!node.lost) lent.push_back({node.about.name, node.drain_said ? 0 : node.about.cores});
  }
  slurm::Verdict verdict = slurm::judge(*slurm_.picture, slurm_.suspects, lent, slurm_.picture_time);
  slurm_.suspects = std::move(verdict.suspects);
  order_nodes(verdict.orders);
  settle();
}

/// A node that has come since the last look. What it lends it has just got, so no job is in its way.
void Service::obey_slurm(lease::NodeId id) {
  if (!slurm_.picture) return;
  const api::NodeRegistration& about = table_.state().at(id).about;
  slurm_.suspects.erase(about.name);
  const slurm::Verdict verdict =
      slurm::judge(*slurm_.picture, {}, {{about.name, about.cores}}, slurm_.picture_time);
  if (const auto order = verdict.orders.find(about.name); order != verdict.orders.end())
    static_cast<void>(table_.set_site_order(id, order->second, now()));
}

/// What Slurm said long ago holds no more: its hooks go on protecting its jobs.
void Service::forget_old_picture() {
  if (!slurm_.picture || steady_() - slurm_.seen_at <= limits::slurm_picture_max) return;
  log::warning("what Slurm last said is too old to hold: its nodes are open again");
  slurm_.picture.reset();
  slurm_.suspects.clear();
  order_nodes({});
}

void Service::order_nodes(const std::map<std::string, lease::SiteOrder>& orders) {
  for (const auto& [id, node] : table_.state()) {
    if (node.lost) continue;
    const auto order = orders.find(node.about.name);
    static_cast<void>(
        table_.set_site_order(id, order != orders.end() ? order->second : lease::SiteOrder{}, now()));
  }
}

std::optional<std::chrono::milliseconds> Service::slurm_age() const {
  if (!slurm_.picture) return std::nullopt;
  return std::chrono::duration_cast<std::chrono::milliseconds>(steady_() - slurm_.seen_at);
}

}  // namespace sublet::manager
