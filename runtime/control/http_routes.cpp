#include "runtime/control/http_routes.hpp"

#include <array>
#include <charconv>
#include <optional>
#include <span>

namespace sublet::control {
namespace {

constexpr std::size_t segments_max = 16;
using Segments = std::array<std::string_view, segments_max>;

/// The segments of "/a/b" in `storage`; none of what does not begin with a slash or has too many.
std::span<const std::string_view> split_path(std::string_view path, Segments& storage) noexcept {
  std::size_t count = 0;
  while (!path.empty()) {
    if (path.front() != '/' || count == storage.size()) return {};
    path.remove_prefix(1);
    const std::size_t end = path.find('/');
    storage[count++] = path.substr(0, end);
    path = end == std::string_view::npos ? std::string_view() : path.substr(end);
  }
  return {storage.data(), count};
}

bool is_name(std::string_view segment) noexcept {
  return segment.size() > 2 && segment.front() == '{';
}

bool fits(std::span<const std::string> pattern, std::span<const std::string_view> path) noexcept {
  if (pattern.size() != path.size()) return false;
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (is_name(pattern[i]) ? path[i].empty() : path[i] != pattern[i]) return false;
  }
  return !path.empty();
}

}  // namespace

RouteTable::RouteTable(std::vector<Route> routes) {
  entries_.reserve(routes.size());
  for (Route& route : routes) {
    Segments storage;
    const auto segments = split_path(route.pattern, storage);
    std::vector<std::string> owned(segments.begin(), segments.end());
    entries_.push_back({std::move(route), std::move(owned)});
  }
}

RouteTable::Match RouteTable::match(std::string_view method, std::string_view path, Pairs& parameters) const {
  Segments storage;
  const auto segments = split_path(path, storage);
  Match found;
  for (const Entry& entry : entries_) {
    if (!fits(entry.segments, segments)) continue;
    if (entry.route.method == method) {
      for (std::size_t i = 0; i < segments.size(); ++i) {
        const std::string_view name = entry.segments[i];
        if (is_name(name)) parameters.set(name.substr(1, name.size() - 2), segments[i]);
      }
      found.route = &entry.route;
      return found;
    }
    if (found.allowed.find(entry.route.method) == std::string::npos) {
      found.allowed += (found.allowed.empty() ? "" : ", ") + entry.route.method;
    }
  }
  return found;
}

Target split_target(std::string_view target) noexcept {
  constexpr std::string_view scheme = "http://";
  if (target.starts_with(scheme)) {
    const std::size_t path = target.find_first_of("/?", scheme.size());
    target = path == std::string_view::npos ? "/" : target.substr(path);
  }
  const std::size_t mark = target.find('?');
  if (mark == std::string_view::npos) return {target, {}};
  return {target.substr(0, mark), target.substr(mark + 1)};
}

/// RFC 3986, 2.1. A zero byte would end the text for those who read C strings.
std::optional<std::string> decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    unsigned value = 0;
    const std::string_view digits = text.substr(i + 1, 2);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (error != std::errc() || digits.size() != 2 || end != digits.data() + 2 || value == 0)
      return std::nullopt;
    out += static_cast<char>(value);
    i += 2;
  }
  return out;
}

Result<Pairs> parse_query(std::string_view text) {
  Pairs out;
  while (!text.empty()) {
    const std::size_t end = text.find('&');
    const std::string_view pair = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    const std::size_t equals = pair.find('=');
    const auto name = decoded(pair.substr(0, equals));
    const auto value =
        decoded(equals == std::string_view::npos ? std::string_view() : pair.substr(equals + 1));
    if (!name || !value) {
      return Error(Errc::invalid_argument, "the query has a '%' that two hexadecimal digits do not follow");
    }
    out.set(*name, *value);
    if (out.size() > limits::http_pairs_max) {
      return Error(Errc::too_large,
                   "ask with at most " + std::to_string(limits::http_pairs_max) + " parameters in the query");
    }
  }
  return out;
}

}  // namespace sublet::control
