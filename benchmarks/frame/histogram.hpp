#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace sublet::bench {

/// Times in fixed memory (some 60 KiB): buckets no wider than 1/512 of their value, or 1 ns. Times above
/// 68 s count as 68 s.
class Histogram {
 public:
  /// Allocates: never. Blocks: never.
  void add(std::chrono::nanoseconds time) noexcept;
  void add(const Histogram& other) noexcept;

  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  /// Microseconds that `part` (0 to 1) of the times lie below; 0 of none.
  [[nodiscard]] double quantile_us(double part) const noexcept;
  [[nodiscard]] double max_us() const noexcept { return static_cast<double>(max_) / 1000; }

 private:
  static constexpr unsigned sub_bits = 9;
  static constexpr unsigned value_bits = 36;
  static constexpr std::size_t buckets = (std::size_t{value_bits - sub_bits} + 1) << sub_bits;

  std::array<std::uint32_t, buckets> counts_{};
  std::uint64_t count_ = 0;
  std::uint64_t max_ = 0;
};

}  // namespace sublet::bench
