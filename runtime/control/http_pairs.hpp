#pragma once

#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sublet::control {

/// A few names with their values, in order of arrival: a request has too few for a tree to pay.
class Pairs {
 public:
  using Pair = std::pair<std::string, std::string>;
  using const_iterator = std::vector<Pair>::const_iterator;

  Pairs() = default;
  Pairs(std::initializer_list<Pair> pairs) : pairs_(pairs) {}

  /// Of two with one name the last counts.
  void set(std::string_view name, std::string_view value) {
    for (Pair& pair : pairs_) {
      if (pair.first == name) {
        pair.second = value;
        return;
      }
    }
    pairs_.emplace_back(name, value);
  }
  [[nodiscard]] const_iterator find(std::string_view name) const noexcept {
    return std::find_if(begin(), end(), [&](const Pair& pair) { return pair.first == name; });
  }
  [[nodiscard]] bool contains(std::string_view name) const noexcept { return find(name) != end(); }
  /// Empty when there is none.
  [[nodiscard]] std::string get(std::string_view name) const {
    const auto found = find(name);
    return found == end() ? std::string() : found->second;
  }
  /// @throws std::out_of_range when there is none.
  [[nodiscard]] const std::string& at(std::string_view name) const {
    const auto found = find(name);
    if (found == end()) throw std::out_of_range("no value named " + std::string(name));
    return found->second;
  }
  [[nodiscard]] std::size_t size() const noexcept { return pairs_.size(); }
  [[nodiscard]] const_iterator begin() const noexcept { return pairs_.begin(); }
  [[nodiscard]] const_iterator end() const noexcept { return pairs_.end(); }

 private:
  std::vector<Pair> pairs_;
};

}  // namespace sublet::control
