#include "client/cli/json.hpp"

#include <array>
#include <cmath>
#include <cstdio>

#include "client/cli/terminal.hpp"

namespace sublet::cli {

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char letter : printable(text, true)) {
    if (letter == '\n') {
      out += "\\n";
      continue;
    }
    if (letter == '"' || letter == '\\') out += '\\';
    out += letter;
  }
  return out + '"';
}

JsonObject& JsonObject::raw(std::string_view name, std::string_view json) {
  if (!members_.empty()) members_ += ',';
  members_ += json_string(name) + ':';
  members_ += json;
  return *this;
}

JsonObject& JsonObject::decimal(std::string_view name, double value) {
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%.9g", std::isfinite(value) ? value : 0.0);
  return raw(name, text.data());
}

std::string json_array(const std::vector<std::string>& values) {
  std::string out;
  for (const std::string& value : values) out += (out.empty() ? "" : ",") + value;
  return "[" + out + "]";
}

}  // namespace sublet::cli
