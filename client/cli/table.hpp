#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace sublet::cli {

/// Rows of text under headings, in columns as wide as their widest cell.
class Table {
 public:
  explicit Table(std::vector<std::string> headings) : rows_{std::move(headings)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  void print(std::ostream& out) const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace sublet::cli
