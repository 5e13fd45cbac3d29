// doctor: what works on this machine, what does not, and what to do about it.
#include <algorithm>
#include <array>
#include <iostream>

#include "client/cli/arguments.hpp"
#include "client/cli/checks.hpp"
#include "client/cli/json.hpp"
#include "client/cli/table.hpp"

namespace sublet::cli {

namespace {

const char* name_of(Level level) {
  constexpr std::array names{"ok", "warn", "fail"};
  return names.at(static_cast<std::size_t>(level));
}

Style style_of(Level level) {
  constexpr std::array styles{Style::good, Style::warning, Style::bad};
  return styles.at(static_cast<std::size_t>(level));
}

void print_text(const std::vector<Check>& checks, const Palette& palette) {
  std::size_t width = 0;
  for (const Check& check : checks) width = std::max(width, check.what.size());
  for (const Check& check : checks) {
    const std::string level(name_of(check.level));
    std::cout << palette.paint(level, style_of(check.level)) << std::string(6 - level.size(), ' ')
              << check.what << std::string(width + 2 - check.what.size(), ' ') << printable(check.found)
              << '\n';
    if (!check.advice.empty()) std::cout << std::string(width + 8, ' ') << printable(check.advice) << '\n';
  }
}

void print_json(const std::vector<Check>& checks) {
  std::vector<std::string> list;
  list.reserve(checks.size());
  for (const Check& check : checks) {
    list.push_back(JsonObject()
                       .text("check", check.what)
                       .text("level", name_of(check.level))
                       .text("found", check.found)
                       .text("advice", check.advice)
                       .str());
  }
  std::cout << JsonObject().raw("checks", json_array(list)).str() << '\n';
}

}  // namespace

int doctor(const Arguments& given) {
  std::vector<Check> checks;
  check_machine(checks);
  check_transports(checks);
  check_limits(checks);
  check_manager(checks, given.manager());
  if (given.json()) {
    print_json(checks);
  } else {
    print_text(checks, palette_for_output(!given.has("no-color")));
  }
  const bool failed = std::any_of(checks.begin(), checks.end(),
                                  [](const Check& check) { return check.level == Level::fail; });
  return failed ? exit_failed : exit_ok;
}

}  // namespace sublet::cli
