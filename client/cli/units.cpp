#include "client/cli/units.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

namespace sublet::cli {

std::string in_decimal(double value) {
  std::array<char, 32> text{};
  // 99.95 would be written as 100.0.
  std::snprintf(text.data(), text.size(), value < 99.95 ? "%.1f" : "%.0f", value);
  return text.data();
}

std::string in_bytes(std::uint64_t bytes) {
  constexpr std::array<const char*, 6> units{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return std::to_string(bytes) + " B";
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1023.5 && unit + 1 < units.size()) {
    value /= 1024;
    ++unit;
  }
  std::string text = in_decimal(value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text + " " + units.at(unit);
}

std::string in_time_ns(std::uint64_t nanoseconds) {
  const double value = static_cast<double>(nanoseconds);
  if (nanoseconds == 0) return "0 s";
  if (nanoseconds < 1000) return std::to_string(nanoseconds) + " ns";
  if (value < 999.5e3) return in_decimal(value / 1e3) + " us";
  if (value < 999.5e6) return in_decimal(value / 1e6) + " ms";
  if (value < 59.95e9) return in_decimal(value / 1e9) + " s";
  const std::uint64_t seconds = nanoseconds / 1'000'000'000;
  const auto two = [](std::uint64_t large, const char* name, std::uint64_t small, const char* other) {
    return std::to_string(large) + " " + name + " " + std::to_string(small) + " " + other;
  };
  if (seconds < 3600) return two(seconds / 60, "min", seconds % 60, "s");
  if (seconds < 24 * 3600) return two(seconds / 3600, "h", seconds / 60 % 60, "min");
  return two(seconds / (24 * 3600), "d", seconds / 3600 % 24, "h");
}

std::string in_time(std::chrono::nanoseconds time) {
  return in_time_ns(static_cast<std::uint64_t>(std::max<std::int64_t>(time.count(), 0)));
}

std::string in_time_ms(std::uint64_t milliseconds) {
  constexpr std::uint64_t ns = 1'000'000;
  return in_time_ns(std::min(milliseconds, UINT64_MAX / ns) * ns);
}

std::string ago(std::uint64_t then_ms, std::uint64_t now_ms) {
  if (then_ms == 0) return "-";
  return in_time_ms(now_ms > then_ms ? now_ms - then_ms : 0);
}

}  // namespace sublet::cli
