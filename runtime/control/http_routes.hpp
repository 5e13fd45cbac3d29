#pragma once

#include <string_view>
#include <vector>

#include "runtime/control/http_server.hpp"

namespace sublet::control {

/// The routes of a server, split once, so that a request is compared segment by segment.
class RouteTable {
 public:
  explicit RouteTable(std::vector<Route> routes);

  struct Match {
    const Route* route = nullptr;
    std::string allowed;  ///< The path exists with these methods only: 405.
  };
  /// The first route that fits, with what its {names} stand for in `parameters`; or why none does.
  [[nodiscard]] Match match(std::string_view method, std::string_view path, Pairs& parameters) const;

 private:
  struct Entry {
    Route route;
    std::vector<std::string> segments;  ///< "{name}" stands for any but the empty one.
  };
  std::vector<Entry> entries_;
};

/// The path of a request's target, in origin form ("/a?b") or absolute form ("http://host/a?b"), and its
/// query.
struct Target {
  std::string_view path;
  std::string_view query;
};
[[nodiscard]] Target split_target(std::string_view target) noexcept;

/// "a=1&b" to {a: 1, b: ""}; of two with one name the last counts.
/// @retval Errc::too_large More than limits::http_pairs_max.
[[nodiscard]] Result<Pairs> parse_query(std::string_view text);

}  // namespace sublet::control
