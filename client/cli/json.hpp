#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// JSON for what is no body of the manager's API.
namespace sublet::cli {

/// With quotes around it. What is not UTF-8 and control characters become '?'.
[[nodiscard]] std::string json_string(std::string_view text);

class JsonObject {
 public:
  JsonObject& text(std::string_view name, std::string_view value) { return raw(name, json_string(value)); }
  JsonObject& number(std::string_view name, std::uint64_t value) { return raw(name, std::to_string(value)); }
  JsonObject& decimal(std::string_view name, double value);
  JsonObject& truth(std::string_view name, bool value) { return raw(name, value ? "true" : "false"); }
  /// @param json A JSON value already.
  JsonObject& raw(std::string_view name, std::string_view json);
  [[nodiscard]] std::string str() const { return "{" + members_ + "}"; }

 private:
  std::string members_;
};

/// @param values JSON values already.
[[nodiscard]] std::string json_array(const std::vector<std::string>& values);

}  // namespace sublet::cli
