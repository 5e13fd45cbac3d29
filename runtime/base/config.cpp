#include "runtime/base/config.hpp"

#include <sys/stat.h>

#include <fcntl.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/limits.hpp"

namespace sublet::config {
namespace {

constexpr const char* file_option = "config";
constexpr const char* print_option = "print-config";

std::string_view trimmed(std::string_view text) noexcept {
  constexpr std::string_view blanks = " \t";
  const std::size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

/// What decides over a line's meaning must be visible.
bool is_plain(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) >= ' ' || c == '\t'; });
}

bool contains(const std::vector<std::string>& names, std::string_view name) noexcept {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Status take_section(File& file, std::string_view line, std::size_t number) {
  const std::string_view inside = trimmed(line.substr(1, line.size() - 2));
  const std::size_t blank = inside.find_first_of(" \t");
  const std::string_view name =
      blank == std::string_view::npos ? std::string_view() : trimmed(inside.substr(blank));
  if (!line.ends_with(']') || name.empty() || name.find_first_of(" \t[]") != std::string_view::npos) {
    return file.wrong(number, "a section is [KIND NAME], such as [tenant physics]");
  }
  Section section{std::string(inside.substr(0, blank)), std::string(name), number, {}};
  for (const Section& other : file.sections) {
    if (other.kind == section.kind && other.name == section.name) {
      return file.wrong(number, "[" + section.kind + " " + section.name + "] stands at line " +
                                    std::to_string(other.line) + " already; join the two");
    }
  }
  file.sections.push_back(std::move(section));
  return {};
}

Status take_entry(File& file, std::string_view line, std::size_t number) {
  const std::size_t equals = line.find('=');
  const std::string_view key = trimmed(line.substr(0, equals));
  if (equals == std::string_view::npos || key.empty() || key.find_first_of(" \t") != std::string_view::npos) {
    return file.wrong(number, "expected 'key = value', a [section], or a comment behind #");
  }
  std::vector<Entry>& entries = file.sections.back().entries;
  for (const Entry& other : entries) {
    if (other.key == key) {
      return file.wrong(number, "'" + other.key + "' stands at line " + std::to_string(other.line) +
                                    " already; keep one of the two");
    }
  }
  entries.push_back({std::string(key), std::string(trimmed(line.substr(equals + 1))), number});
  return {};
}

/// The options that a file may set.
std::vector<cxxopts::HelpOptionDetails> keys(const cxxopts::Options& described,
                                             const std::vector<std::string>& outside_file) {
  std::vector<cxxopts::HelpOptionDetails> out;
  for (const std::string& group : described.groups()) {
    for (const cxxopts::HelpOptionDetails& option : described.group_help(group).options) {
      if (option.l.empty() || option.l.front() == file_option || option.l.front() == print_option) continue;
      if (!contains(outside_file, option.l.front())) out.push_back(option);
    }
  }
  return out;
}

/// One entry as an argument of a command line, tried alone so that a complaint names its line; empty for a
/// flag that is false.
Result<std::string> argument_of(cxxopts::Options& described,
                                const std::vector<cxxopts::HelpOptionDetails>& known, const File& file,
                                const Entry& entry) {
  const auto option = std::find_if(known.begin(), known.end(),
                                   [&](const auto& candidate) { return candidate.l.front() == entry.key; });
  if (option == known.end()) {
    return file.wrong(entry.line, "there is no option '" + entry.key + "' that a file may set; see --help");
  }
  if (entry.value.empty())
    return file.wrong(entry.line, "'" + entry.key + "' has no value; comment it out instead");
  if (option->is_boolean) {
    if (entry.value == "false") return std::string();
    if (entry.value == "true") return "--" + entry.key;
    return file.wrong(entry.line, "'" + entry.key + "' takes true or false, not '" + entry.value + "'");
  }
  const std::string argument = "--" + entry.key + "=" + entry.value;
  try {
    const std::array<const char*, 2> alone{"", argument.c_str()};
    static_cast<void>(described.parse(static_cast<int>(alone.size()), alone.data()));
  } catch (const cxxopts::exceptions::exception& error) {
    return file.wrong(entry.line, error.what());
  }
  return argument;
}

}  // namespace

Error File::wrong(std::size_t line, const std::string& text) const {
  return {Errc::invalid_argument, path + ":" + std::to_string(line) + ": " + text};
}

Result<File> parse(std::string path, std::string_view text) {
  File file{std::move(path), {Section{}}};
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);  // Written on another system.
    if (!is_plain(line)) return file.wrong(number, "a control character; is this a text file?");
    line = trimmed(line);
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    const Status taken =
        line.front() == '[' ? take_section(file, line, number) : take_entry(file, line, number);
    if (!taken) return taken.error();
  }
  return file;
}

Result<File> read_file(const std::string& path) {
  const auto failed = [&path](int number) {
    return Error(Errc::io_error, "cannot read the configuration " + path + ": " + std::strerror(number));
  };
  // Without waiting: opening a pipe that nobody writes to would keep the program for ever.
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return failed(errno);
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return failed(errno);
  if (S_ISDIR(info.st_mode)) return failed(EISDIR);
  if (!S_ISREG(info.st_mode)) {
    return Error(Errc::invalid_argument, "the configuration " + path + " is no regular file; name one");
  }
  std::string text(limits::config_bytes_max + 1, '\0');
  std::size_t used = 0;
  while (used < text.size()) {
    const ssize_t count = ::read(file.get(), text.data() + used, text.size() - used);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return failed(errno);
    if (count == 0) break;
    used += static_cast<std::size_t>(count);
  }
  if (used > limits::config_bytes_max) {
    return Error(Errc::too_large, "the configuration " + path + " exceeds " +
                                      std::to_string(limits::config_bytes_max) +
                                      " bytes; is it the right file?");
  }
  return parse(path, std::string_view(text).substr(0, used));
}

Result<std::uint32_t> number_of(const File& file, const Entry& entry, std::uint32_t most) {
  std::uint32_t number = 0;
  const char* end = entry.value.data() + entry.value.size();
  const auto [stop, error] = std::from_chars(entry.value.data(), end, number);
  if (entry.value.empty() || error != std::errc() || stop != end || number > most) {
    return file.wrong(entry.line, "'" + entry.key + "' takes a whole number up to " + std::to_string(most) +
                                      ", not '" + entry.value + "'");
  }
  return number;
}

std::string Settings::origin(const std::string& key) const {
  const auto found = from.find(key);
  return found == from.end() ? std::string() : found->second;
}

void add_options(cxxopts::Options& described) {
  described.add_options()  //
      (file_option,
       "Take what the command line does not say from this file of 'key = value' lines, a key being an "
       "option's long name",
       cxxopts::value<std::string>(), "FILE")  //
      (print_option, "Print what is in force as such a file and end");
}

Result<Settings> read(cxxopts::Options& described, int argc, const char* const* argv,
                      const std::vector<std::string>& outside_file, const std::vector<std::string>& kinds) {
  Settings settings;
  settings.given = described.parse(argc, argv);
  settings.said = settings.given.arguments();
  if (settings.given.count(file_option) == 0) return settings;
  Result<File> file = read_file(settings.given[file_option].as<std::string>());
  if (!file) return file.error();
  settings.file = *std::move(file);
  for (const Section& section : settings.file.sections) {
    if (!section.kind.empty() && !contains(kinds, section.kind)) {
      return settings.file.wrong(section.line, "there are no sections of kind '" + section.kind + "'");
    }
  }
  const auto known = keys(described, outside_file);
  std::vector<std::string> words{argc > 0 ? argv[0] : ""};
  for (const Entry& entry : settings.file.sections.front().entries) {
    const Result<std::string> argument = argument_of(described, known, settings.file, entry);
    if (!argument) return argument.error();
    if (argument->empty() || settings.given.count(entry.key) > 0) continue;
    words.push_back(*argument);
    settings.from[entry.key] = " (" + settings.file.path + ":" + std::to_string(entry.line) + ")";
  }
  std::vector<const char*> joined;
  for (const std::string& word : words) joined.push_back(word.c_str());
  for (int i = 1; i < argc; ++i) joined.push_back(argv[i]);
  settings.given = described.parse(static_cast<int>(joined.size()), joined.data());
  settings.said = settings.given.arguments();
  return settings;
}

std::string print(const cxxopts::Options& described, const Settings& settings,
                  const std::vector<std::string>& outside_file) {
  std::string out;
  for (const cxxopts::HelpOptionDetails& option : keys(described, outside_file)) {
    const std::string& key = option.l.front();
    std::string value = option.is_boolean ? "false" : option.has_default ? option.default_value : "";
    for (const cxxopts::KeyValue& said : settings.said) {
      if (said.key() == key) value = said.value();
    }
    out += value.empty() ? "# " + key + " =\n" : key + " = " + value + "\n";
  }
  return out;
}

}  // namespace sublet::config
