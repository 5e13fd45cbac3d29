#include <charconv>
#include <utility>

#include "runtime/transport/fault/fault_transport.hpp"

namespace sublet::transport::fault {
namespace {

Error wrong(std::string_view part, const char* expected) {
  std::string text("'");
  text.append(part).append("' in a fault transport's name: expected ").append(expected);
  return {Errc::invalid_argument, std::move(text)};
}

/// Splits off what is before `separator`; all when there is none.
std::string_view cut(std::string_view& text, char separator) {
  const std::size_t at = text.find(separator);
  const std::string_view front = text.substr(0, at);
  text = at == std::string_view::npos ? std::string_view() : text.substr(at + 1);
  return front;
}

template <typename Number>
bool read(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

bool read_probability(std::string_view text, double& probability) {
  return read(text, probability) && probability >= 0 && probability <= 1;
}

bool read_time(std::string_view text, std::chrono::microseconds& time) {
  const std::size_t unit = text.find_first_not_of("0123456789");
  std::uint32_t number = 0;
  if (unit == std::string_view::npos || !read(text.substr(0, unit), number)) return false;
  const std::string_view name = text.substr(unit);
  if (name == "us") time = std::chrono::microseconds(number);
  if (name == "ms") time = std::chrono::milliseconds(number);
  if (name == "s") time = std::chrono::seconds(number);
  return name == "us" || name == "ms" || name == "s";
}

Status parse_rule(std::string_view rule, Rules& rules) {
  std::string_view value = rule;
  const std::string_view key = cut(value, '=');
  if (key == "delay") {
    const std::string_view probability = cut(value, '/');
    if (read_probability(probability, rules.delay) && read_time(value, rules.delay_time)) return {};
    return wrong(rule, "delay=P/TIME such as delay=0.1/5ms");
  }
  double* target = key == "drop"    ? &rules.drop
                   : key == "dup"   ? &rules.duplicate
                   : key == "full"  ? &rules.full
                   : key == "error" ? &rules.error
                                    : nullptr;
  if (target == nullptr) return wrong(rule, "delay, drop, dup, full or error");
  if (!read_probability(value, *target)) return wrong(rule, "a probability from 0 to 1");
  return {};
}

}  // namespace

Result<Specification> parse(std::string_view name) {
  std::string_view rest = name;
  if (cut(rest, ':') != "fault") return wrong(name, "fault:SEED:RULES:BACKEND");
  Specification specification;
  if (const std::string_view seed = cut(rest, ':'); !read(seed, specification.seed)) {
    return wrong(seed, "a decimal seed");
  }
  std::string_view rules = cut(rest, ':');
  while (!rules.empty()) {
    if (Status parsed = parse_rule(cut(rules, ','), specification.rules); !parsed) return parsed.error();
  }
  if (rest.empty()) return wrong(name, "fault:SEED:RULES:BACKEND");
  specification.backend = rest;
  return specification;
}

}  // namespace sublet::transport::fault
