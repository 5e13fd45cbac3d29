// top: nodes, leases and tenants in one look, again and again.
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <iostream>
#include <map>
#include <optional>

#include "client/cli/json.hpp"
#include "client/cli/manager.hpp"
#include "client/cli/rows.hpp"
#include "client/cli/terminal.hpp"
#include "client/cli/units.hpp"
#include "runtime/base/clock.hpp"

namespace sublet::cli {

namespace {

using Lines = std::vector<std::string>;

/// A key press waits for a manager that does not answer.
constexpr Manager::Timeout look_timeout{2000};
/// The newest ones are shown: more do not fit on a screen.
constexpr const char* leases_path = "/v1/leases?state=active&limit=200";
/// Rows of one table when nobody scrolls.
constexpr std::size_t unlimited = SIZE_MAX;

struct Look {
  TimePoint at;
  std::string health_json;
  std::string nodes_json;
  std::string leases_json;
  std::string tenants_json;  ///< Empty: the manager is older.
  std::string metrics;
};

/// The first sample of this name and, with them, these labels.
std::optional<std::uint64_t> metric(const std::string& metrics, const std::string& sample) {
  const std::size_t at = ("\n" + metrics).find("\n" + sample + " ");
  if (at == std::string::npos) return std::nullopt;
  const char* const start = metrics.data() + at + sample.size() + 1;
  std::uint64_t value = 0;
  const auto [stop, error] = std::from_chars(start, metrics.data() + metrics.size(), value);
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

Look take_look(Manager& manager) {
  Look look;
  look.health_json = manager.get("/healthz");
  look.metrics = manager.get("/metrics");
  look.at = SteadyClock::now();
  look.nodes_json = manager.get("/v1/nodes");
  look.leases_json = manager.get(leases_path);
  try {
    look.tenants_json = manager.get("/v1/tenants");
  } catch (const Exception& error) {
    if (error.code() != Errc::not_found) throw;
  }
  return look;
}

std::string rate(const Look& look, const Look* before) {
  if (before == nullptr) return "-";
  const auto now = metric(look.metrics, "sublet_grants_total");
  const auto then = metric(before->metrics, "sublet_grants_total");
  const double seconds = std::chrono::duration<double>(look.at - before->at).count();
  if (!now || !then || *now < *then || seconds <= 0) return "-";
  return in_decimal(static_cast<double>(*now - *then) / seconds);
}

void add_table(Lines& lines, const std::string& title, const Table& table, std::size_t rows_max,
               const Palette& palette) {
  lines.emplace_back();
  lines.push_back(palette.paint(title, Style::bold) + (table.rows() == 0 ? ": none" : ""));
  if (table.rows() == 0) return;
  const Lines all = table.lines(palette);
  const std::size_t shown = std::min(all.size(), rows_max);
  lines.insert(lines.end(), all.begin(), all.begin() + static_cast<std::ptrdiff_t>(shown));
  if (shown < all.size()) lines.push_back("... " + std::to_string(all.size() - shown) + " more");
}

Lines head(Manager& manager, const Look& look, const Look* before, const api::Nodes& nodes,
           const Palette& palette) {
  std::map<std::string, unsigned> states;
  std::uint64_t cores = 0;
  std::uint64_t leased = 0;
  for (const api::NodeInfo& node : nodes.nodes) {
    ++states[node.state];
    if (node.state == "lost") continue;
    cores += node.cores;
    leased += node.cores_leased;
  }
  std::string by_state;
  for (const auto& [state, count] : states) {
    const std::string text = std::to_string(count) + " " + printable(state);
    by_state += (by_state.empty() ? "" : ", ") + palette.paint(text, style_of_node(state));
  }
  const Result<api::Health> health = api::from_json<api::Health>(look.health_json);
  std::string about = palette.paint("sublet", Style::bold) + "  " + manager.url();
  if (health) about += "  " + printable(health->version) + "  up " + ago(health->started_ms, health->time_ms);
  const auto count = [&](const char* sample) {
    return std::to_string(metric(look.metrics, sample).value_or(0));
  };
  return {about,
          "nodes: " + (by_state.empty() ? "none" : by_state) + "   cores leased: " + std::to_string(leased) +
              " of " + std::to_string(cores),
          "leases: " + count(R"(sublet_leases{state="active"})") + " active, " +
              count("sublet_lease_waiters") + " requests waiting   granted: " + rate(look, before) +
              " a second   functions: " + count("sublet_functions")};
}

Lines frame(Manager& manager, const Look& look, const Look* before, std::size_t rows,
            const Palette& palette) {
  const auto nodes = manager.parse<api::Nodes>(look.nodes_json);
  Lines lines = head(manager, look, before, nodes, palette);
  // A heading, a table's head and its last line for each of three tables.
  constexpr std::size_t around_tables = 3 + 3 * 4;
  const std::size_t room = rows == unlimited ? unlimited : rows - std::min(rows, around_tables);
  const auto share = [&](std::size_t part) { return room == unlimited ? unlimited : room * part / 4 + 2; };
  add_table(lines, "NODES", node_rows(nodes), share(2), palette);
  const Result<api::Health> health = api::from_json<api::Health>(look.health_json);
  const auto leases = manager.parse<api::Leases>(look.leases_json);
  add_table(lines, "LEASES", lease_rows(leases, health ? health->time_ms : unix_time_ms()), share(1),
            palette);
  if (!look.tenants_json.empty()) {
    add_table(lines, "TENANTS", tenant_rows(manager.parse<api::Tenants>(look.tenants_json)), share(1),
              palette);
  }
  return lines;
}

void draw(const Lines& lines, const ScreenSize& size) {
  std::string out = "\x1b[H";
  for (std::size_t row = 0; row < size.rows; ++row) {
    if (row < lines.size()) out += cut(lines[row], size.columns);
    out += row + 1 < size.rows ? "\x1b[K\n" : "\x1b[K";
  }
  std::cout << out << std::flush;
}

int watch(Manager& manager, std::chrono::milliseconds interval, const Palette& palette) {
  FullScreen screen;
  std::optional<Look> before;
  std::optional<Look> look;
  std::string trouble;
  for (TimePoint next = SteadyClock::now();;) {
    if (SteadyClock::now() >= next) {
      try {
        Look fresh = take_look(manager);
        before = std::exchange(look, std::move(fresh));
        trouble.clear();
      } catch (const Exception& error) {
        trouble = printable(error.what());
      }
      next = SteadyClock::now() + interval;
    }
    const ScreenSize size = screen_size();
    Lines lines;
    if (look) lines = frame(manager, *look, before ? &*before : nullptr, size.rows - 1, palette);
    lines.resize(size.rows - 1);
    lines.push_back(trouble.empty() ? palette.paint("q ends", Style::dim)
                                    : palette.paint("trying again: " + trouble, Style::bad));
    draw(lines, size);
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - SteadyClock::now());
    if (screen.wait(std::max(left, std::chrono::milliseconds(0))) == FullScreen::Event::quit) return exit_ok;
    if (!std::cout) return exit_failed;
  }
}

}  // namespace

int top(const Arguments& given) {
  const double seconds = given.seconds("interval", 2, 3600);
  Manager manager(given.manager(), look_timeout);
  const Palette palette = palette_for_output(!given.has("no-color"));
  if (given.json()) {
    const Look look = take_look(manager);
    JsonObject bodies;
    bodies.raw("health", look.health_json).raw("nodes", look.nodes_json).raw("leases", look.leases_json);
    if (!look.tenants_json.empty()) bodies.raw("tenants", look.tenants_json);
    std::cout << bodies.str() << '\n';
    return exit_ok;
  }
  if (given.has("once") || ::isatty(STDOUT_FILENO) != 1) {
    for (const std::string& line : frame(manager, take_look(manager), nullptr, unlimited, palette)) {
      std::cout << line << '\n';
    }
    return exit_ok;
  }
  return watch(manager, std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000)), palette);
}

}  // namespace sublet::cli
