#include "runtime/base/log.hpp"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace sublet::log {
namespace {
spdlog::level::level_enum convert(Level level) noexcept {
  switch (level) {
    case Level::debug:
      return spdlog::level::debug;
    case Level::info:
      return spdlog::level::info;
    case Level::warning:
      return spdlog::level::warn;
    case Level::error:
      return spdlog::level::err;
    case Level::off:
      return spdlog::level::off;
  }
  return spdlog::level::info;
}
}  // namespace

void start(std::string_view program, Level level) {
  auto logger = std::make_shared<spdlog::logger>(std::string(program),
                                                 std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %n[%P]: %v");
  logger->set_level(convert(level));
  spdlog::set_default_logger(std::move(logger));
}

Level parse_level(std::string_view text) noexcept {
  if (text == "debug") return Level::debug;
  if (text == "warning") return Level::warning;
  if (text == "error") return Level::error;
  if (text == "off") return Level::off;
  return Level::info;
}

void debug(const std::string& text) {
  spdlog::debug("{}", text);
}
void info(const std::string& text) {
  spdlog::info("{}", text);
}
void warning(const std::string& text) {
  spdlog::warn("{}", text);
}
void error(const std::string& text) {
  spdlog::error("{}", text);
}

}  // namespace sublet::log
