#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace sublet::bench {

/// The functions of a program, from its symbol table.
class Symbols {
 public:
  /// Throws std::runtime_error when the file cannot be read, is no ELF file or was stripped.
  explicit Symbols(const std::filesystem::path& program);

  /// Offset from the program's base of the only function whose readable name begins with `name` and a
  /// parenthesis. Throws std::runtime_error when there is none.
  [[nodiscard]] std::uint64_t offset_of(const std::string& name) const;
  /// The function that the place lies in, without its parameters; empty when none is known.
  [[nodiscard]] std::string function_at(std::uint64_t offset) const;

 private:
  struct Function {
    std::uint64_t bytes = 0;
    std::string name;
  };
  std::map<std::uint64_t, Function> functions_;
  std::filesystem::path program_;
};

}  // namespace sublet::bench
