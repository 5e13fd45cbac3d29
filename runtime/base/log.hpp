#pragma once

#include <string>
#include <string_view>

/// The programs' log: one line an event on stderr, as `time level program: text`. Only this layer
/// knows spdlog. Libraries that users link never log. Never on the invocation path.
namespace sublet::log {

enum class Level { debug, info, warning, error, off };

/// Once, at a program's start. Thread safety: not; the log calls themselves are thread-safe.
void start(std::string_view program, Level level);
/// "debug", "info", "warning", "error", "off"; anything else gives info.
[[nodiscard]] Level parse_level(std::string_view text) noexcept;

void debug(const std::string& text);
void info(const std::string& text);
void warning(const std::string& text);
void error(const std::string& text);

}  // namespace sublet::log
