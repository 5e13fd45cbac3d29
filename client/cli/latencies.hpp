#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace sublet::cli {

/// How long calls took, in memory that does not grow with them: a percentile is exact to 1/32.
class Latencies {
 public:
  void add(std::uint64_t nanoseconds) noexcept {
    ++buckets_[bucket_of(nanoseconds)];
    ++count_;
    max_ = std::max(max_, nanoseconds);
  }
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] std::uint64_t max() const noexcept { return max_; }

  /// @param part 0.5 for the median. 0 when nothing was added.
  [[nodiscard]] std::uint64_t percentile(double part) const noexcept {
    if (count_ == 0) return 0;
    const auto rank = static_cast<std::uint64_t>(part * static_cast<double>(count_ - 1));
    std::uint64_t below = 0;
    for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
      below += buckets_[bucket];
      if (below > rank) return std::min(middle_of(bucket), max_);
    }
    return max_;
  }

 private:
  // Below 32 a bucket for each number; above, 32 for each power of two.
  static constexpr unsigned part_bits = 5;
  static constexpr std::uint64_t parts = std::uint64_t{1} << part_bits;

  static std::size_t bucket_of(std::uint64_t value) noexcept {
    if (value < parts) return value;
    const unsigned shift = static_cast<unsigned>(std::bit_width(value)) - part_bits - 1;
    return (shift + 1) * parts + ((value >> shift) - parts);
  }
  static std::uint64_t middle_of(std::size_t bucket) noexcept {
    if (bucket < parts) return bucket;
    const std::uint64_t shift = bucket / parts - 1;
    return ((bucket % parts + parts) << shift) + ((std::uint64_t{1} << shift) >> 1);
  }

  std::array<std::uint64_t, (64 - part_bits + 1) * parts> buckets_{};
  std::uint64_t count_ = 0;
  std::uint64_t max_ = 0;
};

}  // namespace sublet::cli
