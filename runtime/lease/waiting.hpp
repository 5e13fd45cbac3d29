#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "runtime/lease/time.hpp"

namespace sublet::lease {

/// The order of requests that wait for capacity. Replacements for lost workers come first: their lease has
/// been granted already. Then tenants take turns, the one with the smallest claim first; within a tenant
/// requests keep their order, so that small ones do not starve a large one before them. When there are more
/// than are tried at one change, the next change goes on with those that were not tried. Thread safety: one
/// thread at a time.
class Waiting {
 public:
  void add(std::uint64_t number, const std::string& tenant, bool replacement, Time deadline);
  void remove(std::uint64_t number);
  [[nodiscard]] std::size_t size() const noexcept { return waiting_.size(); }
  /// Requests of the tenant, replacements apart.
  [[nodiscard]] std::uint32_t of(const std::string& tenant) const;
  /// Offers requests in order. `attempt` grants one, or says false: there is no room for it. What was
  /// granted is out of the queue. Stops after `misfits_max` refusals: a bound on the work of one change.
  void serve(const std::function<double(const std::string&)>& claim,
             const std::function<bool(std::uint64_t)>& attempt, int misfits_max);
  /// Takes out those whose deadline is not after `now`.
  [[nodiscard]] std::vector<std::uint64_t> take_overdue(Time now);

 private:
  struct Entry {
    std::string tenant;
    bool replacement = false;
    Time deadline{};
  };
  using Queue = std::set<std::uint64_t>;  // Numbers grow with time.

  void serve_replacements(const std::function<bool(std::uint64_t)>& attempt, int misfits_max);

  [[nodiscard]] Queue& queue_of(const Entry& entry) {
    return entry.replacement ? replacements_ : tenants_[entry.tenant];
  }

  std::map<std::uint64_t, Entry> waiting_;
  Queue replacements_;
  std::map<std::string, Queue> tenants_;
  std::uint64_t replacement_tried_ = 0;  ///< The last one, while some wait behind it that were not.
  std::set<std::string> tried_;          ///< Tenants, while some wait that were not.
};

}  // namespace sublet::lease
