#include "benchmarks/frame/histogram.hpp"

#include <algorithm>
#include <bit>

namespace sublet::bench {

void Histogram::add(std::chrono::nanoseconds time) noexcept {
  constexpr std::uint64_t value_max = (std::uint64_t{1} << value_bits) - 1;
  const std::uint64_t value =
      std::min(static_cast<std::uint64_t>(std::max<std::int64_t>(time.count(), 0)), value_max);
  // The highest sub_bits + 1 bits of a value name its bucket.
  const auto width = static_cast<unsigned>(std::bit_width(value));
  const unsigned shift = width > sub_bits + 1 ? width - sub_bits - 1 : 0;
  ++counts_[(std::size_t{shift} << sub_bits) + (value >> shift)];
  ++count_;
  max_ = std::max(max_, value);
}

void Histogram::add(const Histogram& other) noexcept {
  for (std::size_t i = 0; i < buckets; ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  max_ = std::max(max_, other.max_);
}

double Histogram::quantile_us(double part) const noexcept {
  if (count_ == 0) return 0;
  const double rank = part * static_cast<double>(count_ - 1);
  double before = 0;
  for (std::size_t i = 0; i < buckets; ++i) {
    const double here = counts_[i];
    if (here > 0 && rank < before + here) {
      const std::size_t row = i >> sub_bits;
      const unsigned shift = row == 0 ? 0 : static_cast<unsigned>(row - 1);
      const auto low = static_cast<double>((i - (std::size_t{shift} << sub_bits)) << shift);
      const double width = static_cast<double>(std::uint64_t{1} << shift);
      const double value = low + width * (rank - before + 0.5) / here;
      return std::min(value, static_cast<double>(max_)) / 1000;
    }
    before += here;
  }
  return max_us();
}

}  // namespace sublet::bench
