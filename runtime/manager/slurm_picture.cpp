#include "runtime/manager/slurm_picture.hpp"

#include <array>
#include <charconv>
#include <optional>

#include "runtime/base/limits.hpp"

namespace sublet::manager::slurm {
namespace {

constexpr std::size_t host_bytes_max = 256;
constexpr std::size_t brackets_max = 4;  ///< In one name: rack, chassis, node.
constexpr std::size_t number_digits_max = 9;

Error wrong(std::string what) {
  return {Errc::invalid_argument, std::move(what)};
}

template <typename T>
std::optional<T> number(std::string_view text) {
  T value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || stop != text.data() + text.size()) return std::nullopt;
  return value;
}

/// What lies before the first `separator` outside of brackets; `text` loses both.
std::string_view take_until(std::string_view& text, char separator) {
  int depth = 0;
  std::size_t end = 0;
  for (; end < text.size(); ++end) {
    if (text[end] == '[') ++depth;
    if (text[end] == ']') --depth;
    if (text[end] == separator && depth == 0) break;
  }
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return part;
}

/// "1-3" or "07": the numbers as they are written.
Status add_range(std::string_view range, std::size_t most, std::vector<std::string>& to) {
  const std::size_t dash = range.find('-');
  const std::string_view from = range.substr(0, dash);
  const std::string_view until = dash == std::string_view::npos ? from : range.substr(dash + 1);
  const auto first = number<std::uint32_t>(from);
  const auto last = number<std::uint32_t>(until);
  if (!first || !last || *first > *last || until.size() > number_digits_max)
    return wrong("'" + std::string(range.substr(0, host_bytes_max)) + "' is no range of nodes");
  if (*last - *first >= most || to.size() + (*last - *first) >= most) return wrong("it names too many nodes");
  for (std::uint32_t each = *first; each <= *last; ++each) {
    std::string digits = std::to_string(each);
    if (digits.size() < from.size()) digits.insert(0, from.size() - digits.size(), '0');
    to.push_back(std::move(digits));
  }
  return {};
}

/// One name with any brackets, such as r[1-2]n[01-16].
Status add_hosts(std::string_view name, std::size_t most, std::vector<std::string>& to) {
  if (name.empty() || name.size() > host_bytes_max) return wrong("a name of a node is empty or too long");
  std::vector<std::string> hosts{""};
  for (std::size_t brackets = 0; !name.empty(); ++brackets) {
    const std::size_t open = std::min(name.find('['), name.size());
    for (std::string& host : hosts) host += name.substr(0, open);
    name.remove_prefix(open);
    if (name.empty()) break;
    const std::size_t close = name.find(']');
    if (close == std::string_view::npos || brackets == brackets_max) return wrong("a bracket is not closed");
    std::string_view ranges = name.substr(1, close - 1);
    name.remove_prefix(close + 1);
    std::vector<std::string> numbers;
    do {
      if (Status good = add_range(take_until(ranges, ','), most, numbers); !good) return good;
    } while (!ranges.empty());
    if (hosts.size() * numbers.size() > most) return wrong("it names too many nodes");
    std::vector<std::string> longer;
    longer.reserve(hosts.size() * numbers.size());
    for (const std::string& host : hosts) {
      for (const std::string& digits : numbers) longer.push_back(host + digits);
    }
    hosts = std::move(longer);
  }
  if (hosts.front().find_first_of("],") != std::string::npos) return wrong("a bracket is not opened");
  if (to.size() + hosts.size() > most) return wrong("it names too many nodes");
  to.insert(to.end(), std::make_move_iterator(hosts.begin()), std::make_move_iterator(hosts.end()));
  return {};
}

/// A line of squeue.
struct JobLine {
  Job id = 0;
  std::string_view state;
  std::optional<WallTime> start;
  std::uint32_t cpus = 0;
  std::string_view planned_on;
  std::string_view runs_on;
  bool pilot = false;
};

Result<JobLine> job_of(std::string_view line) {
  std::array<std::string_view, 6> field;
  std::string_view rest = line;
  for (std::string_view& each : field) {
    const std::size_t end = rest.find('|');
    if (end == std::string_view::npos) {
      return wrong("squeue printed '" + std::string(line.substr(0, host_bytes_max)) +
                   "', which is not the format that it was asked for");
    }
    each = rest.substr(0, end);
    rest.remove_prefix(end + 1);
  }
  const auto id = number<Job>(field[0]);
  const auto cpus = number<std::uint32_t>(field[3]);
  if (!id || !cpus) return wrong("squeue printed a job without number or CPUs");
  JobLine job{.id = *id,
              .state = field[1],
              .cpus = *cpus,
              .planned_on = field[4],
              .runs_on = field[5],
              .pilot = rest.substr(0, pilot_name.size()) == pilot_name};
  // N/A when it is not planned; anything beyond a year is none either.
  const auto start = number<std::int64_t>(field[2]);
  if (start && *start > 0) job.start = WallTime(std::chrono::seconds(*start));
  return job;
}

class Reader {
 public:
  explicit Reader(Picture& picture) : picture_(picture) {}

  Status take(const JobLine& job) {
    if (job.state == "PD" && !job.pilot && job.start)
      return each_node(job.planned_on, [&](PictureNode& node) {
        if (node.wanted && *node.wanted <= *job.start) return;
        node.wanted = job.start;
        node.wanted_by = job.id;
      });
    if (job.state != "R" && job.state != "S") return {};
    return each_node(job.runs_on, [&](PictureNode& node) {
      (job.pilot ? node.pilots : node.jobs).insert(job.id);
      // A pilot has one node: what several share could not be told apart.
      if (job.pilot) node.pilot_cpus += job.cpus;
    });
  }

 private:
  template <typename Do>
  Status each_node(std::string_view list, Do&& what) {
    if (list.empty() || list == "(null)") return {};
    const Result<std::vector<std::string>> names = expand_hosts(list, limits::slurm_hosts_max);
    if (!names) return names.error();
    mentioned_ += names->size();
    if (mentioned_ > limits::slurm_mentions_max) return wrong("squeue names too many nodes in all");
    for (const std::string& name : *names) {
      if (const auto node = picture_.nodes.find(name); node != picture_.nodes.end()) what(node->second);
    }
    return {};
  }

  Picture& picture_;
  std::size_t mentioned_ = 0;
};

}  // namespace

Result<std::vector<std::string>> expand_hosts(std::string_view list, std::size_t most) {
  std::vector<std::string> hosts;
  do {
    if (Status good = add_hosts(take_until(list, ','), most, hosts); !good) return good.error();
  } while (!list.empty());
  return hosts;
}

Result<Picture> parse_picture(std::string_view sinfo, std::string_view squeue, WallTime read) {
  Result<std::vector<control::SinfoNode>> nodes = control::parse_sinfo(sinfo, limits::slurm_hosts_max);
  if (!nodes) return Error(Errc::invalid_argument, "what sinfo printed: " + nodes.error().detail());
  Picture picture{.read = read, .nodes = {}};
  for (control::SinfoNode& node : *nodes) {
    std::string name = node.name;
    picture.nodes[std::move(name)].is = std::move(node);
  }
  Reader reader(picture);
  while (!squeue.empty()) {
    const std::size_t end = std::min(squeue.find('\n'), squeue.size());
    const std::string_view line = squeue.substr(0, end);
    squeue.remove_prefix(std::min(end + 1, squeue.size()));
    const Result<JobLine> job = job_of(line);
    if (!job) return job.error();
    if (Status good = reader.take(*job); !good)
      return Error(Errc::invalid_argument, "job " + std::to_string(job->id) + ": " + good.error().detail());
  }
  return picture;
}

}  // namespace sublet::manager::slurm
