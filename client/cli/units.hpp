#pragma once

#include <chrono>
#include <cstdint>
#include <string>

/// Quantities as people read them.
namespace sublet::cli {

/// "900 B", "1.5 GiB".
[[nodiscard]] std::string in_bytes(std::uint64_t bytes);
/// "850 ns", "1.2 ms", "3.4 s", "5 min 12 s", "2 h 3 min", "3 d 4 h".
[[nodiscard]] std::string in_time(std::chrono::nanoseconds time);
[[nodiscard]] std::string in_time_ns(std::uint64_t nanoseconds);
[[nodiscard]] std::string in_time_ms(std::uint64_t milliseconds);
/// With one digit behind the point below 100, and none above.
[[nodiscard]] std::string in_decimal(double value);
/// A time by the manager's clock that lies before `now_ms`: "12 s", or "-" for 0.
[[nodiscard]] std::string ago(std::uint64_t then_ms, std::uint64_t now_ms);

}  // namespace sublet::cli
