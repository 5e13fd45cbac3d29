#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/lease/lease_table.hpp"
#include "runtime/manager/site_clock.hpp"
#include "tests/simulation/faults.hpp"

namespace sublet::simulation {

/// What survives the manager.
class Disk {
 public:
  /// Checks what must hold of what is written: a lease ends once, nothing runs backwards.
  void write(lease::Rows rows, std::uint64_t next_id, lease::Time now);
  [[nodiscard]] lease::Saved load() const;
  [[nodiscard]] std::uint64_t next_id() const noexcept { return next_id_; }
  [[nodiscard]] lease::Time last() const noexcept { return last_; }
  [[nodiscard]] const std::map<lease::LeaseId, lease::LeaseRow>& leases() const noexcept { return leases_; }
  [[nodiscard]] const std::map<lease::HeldKey, lease::HeldRow>& held() const noexcept { return held_; }
  void forget_held() { held_.clear(); }

 private:
  std::map<lease::NodeId, lease::NodeRow> nodes_;
  std::map<std::string, lease::OrderRow> orders_;
  std::map<lease::LeaseId, lease::LeaseRow> leases_;
  std::map<lease::HeldKey, lease::HeldRow> held_;
  std::uint64_t next_id_ = 1;
  lease::Time last_{};
};

/// The manager program without its sockets: a lease table, its disk, and answers that wait until what they
/// promise is on the disk.
class Manager {
 public:
  Manager(Fault fault, lease::Policy policy);

  [[nodiscard]] lease::LeaseTable& table() noexcept { return *table_; }
  [[nodiscard]] const Disk& disk() const noexcept { return disk_; }
  /// Calls `answer` once the changes up to now are written; never when the manager dies before.
  void promise(std::function<void()> answer);
  void write(TimePoint steady);
  /// kill -9 and a new start: what was not written is forgotten, and the wall clock has been set to anything.
  void restart(TimePoint steady, lease::Time wall);
  /// The node's commands, as its long request gets them.
  [[nodiscard]] Result<api::Commands> commands_after(lease::NodeId id, std::uint64_t after);
  /// What the owner of a node wants of it. @return Whether it is known.
  [[nodiscard]] bool want_back(lease::NodeId id, const lease::SiteOrder& order, TimePoint steady);
  [[nodiscard]] lease::Time time(TimePoint steady) const noexcept { return clock_.at(steady); }

 private:
  Fault fault_;
  lease::Policy policy_;
  Disk disk_;
  std::unique_ptr<lease::LeaseTable> table_;
  std::vector<std::function<void()>> promises_;
  manager::SiteClock clock_{std::chrono::hours(1)};
};

}  // namespace sublet::simulation
