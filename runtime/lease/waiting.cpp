#include "runtime/lease/waiting.hpp"

namespace sublet::lease {

void Waiting::add(std::uint64_t number, const std::string& tenant, bool replacement, Time deadline) {
  const Entry& entry = waiting_.emplace(number, Entry{tenant, replacement, deadline}).first->second;
  queue_of(entry).insert(number);
}

void Waiting::remove(std::uint64_t number) {
  const auto found = waiting_.find(number);
  if (found == waiting_.end()) return;
  queue_of(found->second).erase(number);
  if (const auto tenant = tenants_.find(found->second.tenant);
      tenant != tenants_.end() && tenant->second.empty()) {
    tenants_.erase(tenant);
  }
  waiting_.erase(found);
}

std::uint32_t Waiting::of(const std::string& tenant) const {
  const auto queue = tenants_.find(tenant);
  return queue != tenants_.end() ? static_cast<std::uint32_t>(queue->second.size()) : 0;
}

void Waiting::serve(const std::function<double(const std::string&)>& claim,
                    const std::function<bool(std::uint64_t)>& attempt, int misfits_max) {
  const Queue replacements = replacements_;
  int misfits = misfits_max / 2;  // Replacements that cannot be had shall not keep all others waiting.
  for (const std::uint64_t number : replacements) {
    if (misfits <= 0) break;
    if (attempt(number)) {
      remove(number);
    } else {
      --misfits;
    }
  }
  std::set<std::pair<double, std::string>> order;
  for (const auto& [tenant, queue] : tenants_) order.emplace(claim(tenant), tenant);
  while (!order.empty() && misfits_max > 0) {
    const std::string tenant = order.extract(order.begin()).value().second;
    const auto queue = tenants_.find(tenant);
    if (queue == tenants_.end()) continue;  // They have gone while others were answered.
    const std::uint64_t first = *queue->second.begin();
    if (!attempt(first)) {  // Its later requests wait behind it.
      --misfits_max;
      continue;
    }
    remove(first);
    if (tenants_.contains(tenant)) order.emplace(claim(tenant), tenant);
  }
}

std::vector<std::uint64_t> Waiting::take_overdue(Time now) {
  std::vector<std::uint64_t> overdue;
  for (const auto& [number, entry] : waiting_) {
    if (entry.deadline <= now) overdue.push_back(number);
  }
  for (const std::uint64_t number : overdue) remove(number);
  return overdue;
}

}  // namespace sublet::lease
