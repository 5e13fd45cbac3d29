#include "executor/agent/core_list.hpp"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <tuple>

#include "executor/local/messages.hpp"

namespace sublet::agent {
namespace {

Error wrong(std::string_view text) {
  return {Errc::invalid_argument, "'" + std::string(text) + "' is no list of cores such as 0-3,8"};
}

/// Reads a number at the front and takes it away; -1 when there is none.
int take_number(std::string_view& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0 || static_cast<std::size_t>(number) >= local::cores_max) return -1;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

bool take(std::string_view& text, char wanted) {
  if (text.empty() || text.front() != wanted) return false;
  text.remove_prefix(1);
  return true;
}

/// The lowest number in one of the system's lists of cores; `otherwise` where it has none.
int first_of(const std::string& path, int otherwise) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  std::string_view text = line;
  const int first = take_number(text);
  return first >= 0 ? first : otherwise;
}

}  // namespace

Result<std::vector<int>> parse_core_list(std::string_view text) {
  std::vector<int> cores;
  std::string_view rest = text;
  do {
    const int first = take_number(rest);
    const int last = take(rest, '-') ? take_number(rest) : first;
    if (first < 0 || last < first) return wrong(text);
    for (int core = first; core <= last; ++core) cores.push_back(core);
    if (cores.size() > local::cores_max) return wrong(text);
  } while (take(rest, ','));
  if (!rest.empty()) return wrong(text);
  return cores;
}

std::string print_core_list(const std::vector<int>& cores) {
  std::string text;
  for (std::size_t i = 0; i < cores.size();) {
    std::size_t end = i + 1;
    while (end < cores.size() && cores[end] == cores[end - 1] + 1) ++end;
    if (!text.empty()) text += ',';
    text += std::to_string(cores[i]);
    if (end - i > 1) text += '-' + std::to_string(cores[end - 1]);
    i = end;
  }
  return text;
}

std::vector<int> own_cores(const std::string& sysfs) {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return {};
  std::vector<std::tuple<int, int, int>> places;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &set)) continue;
    const std::string topology = sysfs + "/cpu" + std::to_string(core) + "/topology/";
    places.emplace_back(first_of(topology + "package_cpus_list", 0),
                        first_of(topology + "core_cpus_list", core), core);
  }
  std::sort(places.begin(), places.end());
  std::vector<int> cores;
  cores.reserve(places.size());
  for (const auto& [package, siblings, core] : places) cores.push_back(core);
  return cores;
}

}  // namespace sublet::agent
