#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_set>

namespace sublet::agent {

/// The leases that the manager has ended, the last so many of them: their tokens are good by time for a
/// while yet, and must open nothing. Not thread-safe.
class EndedLeases {
 public:
  static constexpr std::size_t remembered_max = 65'536;

  void add(std::uint64_t lease) {
    if (!known_.insert(lease).second) return;
    order_.push_back(lease);
    if (order_.size() <= remembered_max) return;
    known_.erase(order_.front());
    order_.pop_front();
  }
  [[nodiscard]] bool contains(std::uint64_t lease) const { return known_.count(lease) > 0; }

 private:
  std::unordered_set<std::uint64_t> known_;
  std::deque<std::uint64_t> order_;
};

}  // namespace sublet::agent
