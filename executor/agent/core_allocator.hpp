#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

namespace sublet::agent {

/// The cores of a node that may be lent, each to one lease at a time. Not thread-safe.
class CoreAllocator {
 public:
  explicit CoreAllocator(std::vector<int> cores) : free_(std::move(cores)) {
    std::sort(free_.begin(), free_.end());
  }

  /// `count` distinct cores, lowest numbers first so that neighbours stay together; nothing when fewer are
  /// free.
  [[nodiscard]] std::optional<std::vector<int>> take(std::size_t count) {
    if (count == 0 || count > free_.size()) return std::nullopt;
    const auto end = free_.begin() + static_cast<std::ptrdiff_t>(count);
    std::vector<int> taken(free_.begin(), end);
    free_.erase(free_.begin(), end);
    return taken;
  }
  void give_back(const std::vector<int>& cores) {
    free_.insert(free_.end(), cores.begin(), cores.end());
    std::sort(free_.begin(), free_.end());
  }
  [[nodiscard]] std::size_t free_count() const noexcept { return free_.size(); }

 private:
  std::vector<int> free_;
};

}  // namespace sublet::agent
