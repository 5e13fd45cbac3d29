#include "tests/simulation/manager.hpp"

#include "runtime/base/limits.hpp"

namespace sublet::simulation {
void Disk::write(lease::Rows rows, std::uint64_t next_id, lease::Time now) {
  for (lease::NodeRow& row : rows.nodes) nodes_[row.id] = std::move(row);
  for (const lease::NodeId id : rows.nodes_gone) nodes_.erase(id);
  for (lease::OrderRow& row : rows.orders) {
    if (row.cordoned || row.drained) {
      orders_[row.name] = row;
    } else {
      orders_.erase(row.name);
    }
  }
  for (lease::LeaseRow& row : rows.leases) {
    if (const auto known = leases_.find(row.id); known != leases_.end()) {
      const lease::LeaseRow& old = known->second;
      require(old.reason.empty(), "a lease that has ended is written again");
      require(row.lease_time >= old.lease_time, "a lease's time runs backwards");
      require(row.workers_used >= old.workers_used, "the number of a lease's workers runs backwards");
      require(row.expiry >= old.expiry, "a lease's expiry runs backwards");
      require(row.granted == old.granted, "a lease begins twice");
    }
    require(row.reason.empty() == (row.ended == lease::Time{}), "a lease's end has a time or no reason");
    leases_[row.id] = std::move(row);
  }
  for (lease::HeldRow& row : rows.held) held_[row.key] = std::move(row);
  for (const lease::HeldKey& key : rows.held_gone) held_.erase(key);
  require(next_id >= next_id_, "ids run backwards");
  next_id_ = next_id;
  last_ = now;
}

lease::Saved Disk::load() const {
  lease::Saved saved;
  for (const auto& [id, row] : nodes_) saved.nodes.push_back(row);
  for (const auto& [name, row] : orders_) saved.orders.push_back(row);
  for (const auto& [id, row] : leases_) saved.leases.push_back(row);
  for (const auto& [key, row] : held_) saved.held.push_back(row);
  return saved;
}

Manager::Manager(Fault fault, lease::Policy policy)
    : fault_(fault), policy_(std::move(policy)), table_(std::make_unique<lease::LeaseTable>(1, policy_)) {}

void Manager::promise(std::function<void()> answer) {
  if (fault_ == Fault::answers_before_writing) return answer();
  promises_.push_back(std::move(answer));
}

void Manager::write(TimePoint steady) {
  disk_.write(table_->take_rows(), table_->next_id(), time(steady));
  for (const std::function<void()>& answer : std::exchange(promises_, {})) answer();
}

void Manager::restart(TimePoint steady, lease::Time wall) {
  promises_.clear();
  if (fault_ == Fault::forgets_held_workers) disk_.forget_held();
  clock_ = manager::SiteClock::resume(fault_ != Fault::forgets_its_clock, clock_.offset(), disk_.last(), wall,
                                      steady);
  const std::uint64_t first = fault_ == Fault::reuses_ids ? 1 : disk_.next_id();
  table_ = std::make_unique<lease::LeaseTable>(first, policy_);
  lease::Saved saved = disk_.load();
  if (fault_ == Fault::reuses_ids) saved.leases.clear();
  if (fault_ == Fault::forgets_wishes) {
    for (lease::LeaseRow& row : saved.leases) row.request.transports = {};
  }
  table_->restore(std::move(saved), time(steady), limits::restart_grace);
}

bool Manager::want_back(lease::NodeId id, const lease::SiteOrder& order, TimePoint steady) {
  if (fault_ == Fault::forgets_ends) return table_->node(id, time(steady)).ok();
  return table_->set_site_order(id, order, time(steady)).ok();
}

Result<api::Commands> Manager::commands_after(lease::NodeId id, std::uint64_t after) {
  Result<api::Commands> commands = table_->commands_after(id, after);
  if (commands && fault_ == Fault::loses_end_commands) {
    for (api::Command& command : commands->commands) command.kind = "fetch_function";
  }
  return commands;
}

}  // namespace sublet::simulation
