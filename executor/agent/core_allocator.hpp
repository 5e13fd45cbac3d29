#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

namespace sublet::agent {

/// The cores of a node, by their place in Options::cores: which of them are lent, and which a lease holds.
/// A core that is no longer lent while a lease holds it is free for nobody. Not thread-safe.
class CoreAllocator {
 public:
  /// All are lent.
  explicit CoreAllocator(std::size_t count) : cores_(count, Core{.lent = true}) {}

  /// `count` distinct cores, lowest first so that neighbours stay together; nothing when fewer are free.
  [[nodiscard]] std::optional<std::vector<int>> take(std::size_t count) {
    if (count == 0 || count > free_count()) return std::nullopt;
    std::vector<int> taken;
    for (std::size_t i = 0; taken.size() < count; ++i) {
      if (!cores_[i].free()) continue;
      cores_[i].held = true;
      taken.push_back(static_cast<int>(i));
    }
    return taken;
  }
  void give_back(const std::vector<int>& cores) {
    for (const int core : cores) cores_[static_cast<std::size_t>(core)].held = false;
  }

  /// These and no others are lent from now on; each is one of the node's.
  void lend(const std::vector<int>& cores) {
    for (Core& core : cores_) core.lent = false;
    for (const int core : cores) cores_[static_cast<std::size_t>(core)].lent = true;
  }
  [[nodiscard]] bool lends(int core) const { return cores_[static_cast<std::size_t>(core)].lent; }
  [[nodiscard]] std::vector<int> lent() const {
    std::vector<int> lent;
    for (std::size_t i = 0; i < cores_.size(); ++i) {
      if (cores_[i].lent) lent.push_back(static_cast<int>(i));
    }
    return lent;
  }
  [[nodiscard]] std::size_t size() const noexcept { return cores_.size(); }
  [[nodiscard]] std::size_t lent_count() const noexcept {
    return static_cast<std::size_t>(
        std::count_if(cores_.begin(), cores_.end(), [](const Core& core) { return core.lent; }));
  }
  [[nodiscard]] std::size_t free_count() const noexcept {
    return static_cast<std::size_t>(
        std::count_if(cores_.begin(), cores_.end(), [](const Core& core) { return core.free(); }));
  }

 private:
  struct Core {
    bool lent = false;
    bool held = false;
    [[nodiscard]] bool free() const noexcept { return lent && !held; }
  };
  std::vector<Core> cores_;
};

}  // namespace sublet::agent
