#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/cli/command.hpp"

namespace sublet::cli {

/// What was given to one command. Every accessor throws Usage with the option's name when the value does
/// not fit.
class Arguments {
 public:
  /// @param words  What follows the command's name.
  [[nodiscard]] static Arguments parse(const Command& command, std::vector<std::string> words);

  /// A flag, or an option with a value, that was given.
  [[nodiscard]] bool has(std::string_view option) const;
  /// The value given, else `otherwise`. One of the option's choices, when it has some.
  [[nodiscard]] std::string text(std::string_view option, std::string_view otherwise = "") const;
  [[nodiscard]] std::uint64_t number(std::string_view option, std::uint64_t otherwise, std::uint64_t least,
                                     std::uint64_t most) const;
  /// A number of bytes, with K, M, G or T behind it for KiB, MiB, GiB, TiB.
  [[nodiscard]] std::uint64_t bytes(std::string_view option, std::uint64_t otherwise,
                                    std::uint64_t most) const;
  /// The parts of a value that is a list; none when it is not given.
  [[nodiscard]] std::vector<std::string> list(std::string_view option) const;
  /// A positive number of seconds, which may have a decimal point.
  [[nodiscard]] double seconds(std::string_view option, double otherwise, double most) const;
  [[nodiscard]] const std::vector<std::string>& operands() const noexcept { return operands_; }

  [[nodiscard]] bool json() const { return has("json"); }
  [[nodiscard]] std::string manager() const;

 private:
  std::set<std::string, std::less<>> flags_;
  std::map<std::string, std::string, std::less<>> values_;
  std::vector<std::string> operands_;
};

/// Splits "name@version".
[[nodiscard]] std::pair<std::string, std::string> parse_function(const std::string& text);

/// The known word that `word` was probably meant to be, or nothing.
[[nodiscard]] std::string nearest(std::string_view word, const std::vector<std::string>& known);
/// "; did you mean 'X'?", or nothing.
[[nodiscard]] std::string suggestion(std::string_view word, const std::vector<std::string>& known);

/// The texts of --help.
[[nodiscard]] std::string help_text();
[[nodiscard]] std::string help_text(const Command& command);
/// "drain NODE..."
[[nodiscard]] std::string synopsis(const Command& command);

}  // namespace sublet::cli
