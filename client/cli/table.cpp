#include "client/cli/table.hpp"

#include <algorithm>
#include <cstddef>
#include <ostream>

namespace sublet::cli {

Table::Table(std::vector<std::string> headings) : rows_(1) {
  for (std::string& heading : headings) {
    right_.push_back(heading.starts_with('>'));
    rows_.front().emplace_back(right_.back() ? heading.substr(1) : std::move(heading), Style::bold);
  }
}

void Table::add(std::vector<Cell> row) {
  for (Cell& cell : row) cell.text = printable(cell.text);
  rows_.push_back(std::move(row));
}

std::vector<std::string> Table::lines(const Palette& palette) const {
  std::vector<std::size_t> widths(rows_.front().size(), 0);
  for (const auto& row : rows_) {
    for (std::size_t column = 0; column < row.size(); ++column) {
      widths[column] = std::max(widths[column], row[column].text.size());
    }
  }
  std::vector<std::string> lines;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t column = 0; column < row.size(); ++column) {
      const std::string padding(widths[column] - row[column].text.size(), ' ');
      const bool last = column + 1 == row.size();
      if (right_[column]) line += padding;
      line += palette.paint(row[column].text, row[column].style);
      if (!right_[column] && !last) line += padding;
      if (!last) line += "  ";
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

void Table::print(std::ostream& out, const Palette& palette) const {
  for (const std::string& line : lines(palette)) out << line << '\n';
}

}  // namespace sublet::cli
