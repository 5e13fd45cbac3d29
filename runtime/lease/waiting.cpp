#include "runtime/lease/waiting.hpp"

#include <tuple>
#include <utility>

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
    tried_.erase(tenant->first);
    tenants_.erase(tenant);
  }
  waiting_.erase(found);
}

std::uint32_t Waiting::of(const std::string& tenant) const {
  const auto queue = tenants_.find(tenant);
  return queue != tenants_.end() ? static_cast<std::uint32_t>(queue->second.size()) : 0;
}

void Waiting::serve_replacements(const std::function<bool(std::uint64_t)>& attempt, int misfits_max) {
  std::vector<std::uint64_t> order(replacements_.upper_bound(replacement_tried_), replacements_.end());
  order.insert(order.end(), replacements_.begin(), replacements_.upper_bound(replacement_tried_));
  for (const std::uint64_t number : order) {
    if (misfits_max <= 0) return;
    if (!replacements_.contains(number)) continue;  // It has gone while others were answered.
    replacement_tried_ = number;
    if (attempt(number)) {
      remove(number);
    } else {
      --misfits_max;
    }
  }
  replacement_tried_ = 0;  // All were: the oldest comes first again.
}

void Waiting::serve(const std::function<double(const std::string&)>& claim,
                    const std::function<bool(std::uint64_t)>& attempt, int misfits_max) {
  // Replacements that cannot be had shall not keep all others waiting.
  serve_replacements(attempt, misfits_max / 2);
  const std::set<std::string> before = std::exchange(tried_, {});
  std::set<std::tuple<bool, double, std::string>> order;  // Those that were not tried before come first.
  const auto line_up = [&](const std::string& tenant) {
    order.emplace(before.contains(tenant), claim(tenant), tenant);
  };
  for (const auto& [tenant, queue] : tenants_) line_up(tenant);
  std::set<std::string> tried;
  while (!order.empty() && misfits_max > 0) {
    const std::string tenant = std::get<std::string>(order.extract(order.begin()).value());
    const auto queue = tenants_.find(tenant);
    if (queue == tenants_.end()) continue;  // They have gone while others were answered.
    const std::uint64_t first = *queue->second.begin();
    if (!attempt(first)) {  // Its later requests wait behind it.
      tried.insert(tenant);
      --misfits_max;
      continue;
    }
    remove(first);
    if (tenants_.contains(tenant)) line_up(tenant);
  }
  if (order.empty()) return;  // All were tried: the next change begins with the smallest claim again.
  tried_ = std::move(tried);
  if (std::get<bool>(*order.begin())) return;
  for (const std::string& tenant : before) {
    if (tenants_.contains(tenant)) tried_.insert(tenant);
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
