#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "client/cli/terminal.hpp"

namespace sublet::cli {

struct Cell {
  // A cell is its text: these two convert.
  Cell(std::string content) : text(std::move(content)) {}  // NOLINT(google-explicit-constructor)
  Cell(const char* content) : text(content) {}             // NOLINT(google-explicit-constructor)
  Cell(std::string content, Style how) : text(std::move(content)), style(how) {}
  std::string text;
  Style style = Style::plain;
};

/// Rows of text under headings, in columns as wide as their widest cell. A heading that starts with '>'
/// stands over numbers: its column is flush right. What could steer a terminal is taken out of the cells.
class Table {
 public:
  explicit Table(std::vector<std::string> headings);
  void add(std::vector<Cell> row);
  [[nodiscard]] std::size_t rows() const noexcept { return rows_.size() - 1; }
  /// The lines, headings first.
  [[nodiscard]] std::vector<std::string> lines(const Palette& palette) const;
  void print(std::ostream& out, const Palette& palette) const;

 private:
  std::vector<bool> right_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace sublet::cli
