#include "client/cli/arguments.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cxxopts.hpp>
#include <numeric>

namespace sublet::cli {

namespace {

std::vector<std::string> split(std::string_view words, char between = ' ') {
  std::vector<std::string> found;
  while (!words.empty()) {
    const std::size_t blank = std::min(words.find(between), words.size());
    found.emplace_back(words.substr(0, blank));
    words.remove_prefix(std::min(blank + 1, words.size()));
  }
  return found;
}

std::string dashed(std::string_view name) {
  return std::string("--").append(name);
}

std::vector<Option> options_of(const Command& command) {
  std::vector<Option> options(command.options.begin(), command.options.end());
  options.insert(options.end(), common_options().begin(), common_options().end());
  return options;
}

void check_operands(const Command& command, const std::vector<std::string>& given) {
  const std::size_t needed = command.operands.size();
  const bool open_ended = needed > 0 && command.operands.back().count == Count::some;
  if (given.size() < needed) {
    throw Usage(std::string(command.name) + " needs " + std::string(command.operands[given.size()].name));
  }
  if (given.size() > needed && !open_ended) {
    throw Usage("'" + given[needed] + "' is one word too many for " + std::string(command.name));
  }
}

void check_choice(const std::string& what, const std::string& value, std::string_view choices) {
  const std::vector<std::string> known = split(choices);
  for (const std::string& choice : known) {  // "fabric:PROVIDER" is any word behind its colon.
    const std::size_t front = choice.find(':') + 1;
    if (front > 0 && value.size() > front && value.starts_with(choice.substr(0, front))) return;
  }
  if (known.empty() || std::find(known.begin(), known.end(), value) != known.end()) return;
  std::string list;
  for (const std::string& choice : known) list += (list.empty() ? "" : ", ") + choice;
  throw Usage(what + " is one of " + list + ", not '" + value + "'" + suggestion(value, known));
}

/// Refuses options that the command does not have, and values that are missing; -h becomes --help.
void check_options(const std::vector<Option>& options, std::vector<std::string>& words) {
  std::vector<std::string> known;
  known.reserve(options.size());
  for (const Option& option : options) known.push_back(dashed(option.name));
  for (std::size_t at = 0; at < words.size() && words[at] != "--"; ++at) {
    if (words[at] == "-h") words[at] = "--help";
    const std::string name = words[at].substr(0, words[at].find('='));
    if (name.size() < 2 || name.front() != '-') continue;
    const auto option = std::find(known.begin(), known.end(), name);
    if (option == known.end()) throw Usage("there is no option " + name + suggestion(name, known));
    const std::string_view argument = options[static_cast<std::size_t>(option - known.begin())].argument;
    if (argument.empty() || name != words[at]) continue;
    if (++at == words.size()) throw Usage(name + " needs " + std::string(argument));
  }
}

/// Lines of at most 80 columns, the later ones indented.
std::string wrapped(std::string_view text, std::size_t indent) {
  constexpr std::size_t columns = 80;
  std::string out;
  std::size_t column = indent;
  for (const std::string& word : split(text)) {
    if (column > indent && column + 1 + word.size() > columns) {
      out += '\n' + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
  }
  return out;
}

std::string option_lines(std::span<const Option> options) {
  constexpr std::size_t indent = 28;
  std::string out;
  for (const Option& option : options) {
    std::string left = std::string(2, ' ') + dashed(option.name);
    if (!option.argument.empty()) left.append(" ").append(option.argument);
    std::string about(option.about);
    if (!option.choices.empty()) about += ": " + std::string(option.choices);
    if (!option.otherwise.empty()) about += " (default: " + std::string(option.otherwise) + ")";
    left.resize(std::max(indent, left.size() + 2), ' ');
    out += left + wrapped(about, indent) + '\n';
  }
  return out;
}

}  // namespace

Arguments Arguments::parse(const Command& command, std::vector<std::string> words) {
  const std::vector<Option> known = options_of(command);
  check_options(known, words);
  cxxopts::Options options("sublet " + std::string(command.name));
  for (const Option& option : known) {
    const auto value = option.argument.empty()
                           ? std::shared_ptr<cxxopts::Value>(cxxopts::value<bool>())
                           : std::shared_ptr<cxxopts::Value>(cxxopts::value<std::string>());
    options.add_options()(std::string(option.name), "", value);
  }
  const std::string program(command.name);
  std::vector<const char*> pointers{program.c_str()};
  for (const std::string& word : words) pointers.push_back(word.c_str());
  Arguments arguments;
  try {
    const auto given = options.parse(static_cast<int>(pointers.size()), pointers.data());
    for (const Option& option : known) {
      const std::string name(option.name);
      if (given.count(name) == 0) continue;
      if (!option.argument.empty()) {
        arguments.values_[name] = given[name].as<std::string>();
        const std::string& value = arguments.values_[name];
        for (const std::string& part : option.list ? split(value, ',') : std::vector<std::string>{value}) {
          check_choice(dashed(name), part, option.choices);
        }
        if (option.list && value.empty()) check_choice(dashed(name), value, option.choices);
      } else if (given[name].as<bool>()) {
        arguments.flags_.insert(name);
      }
    }
    arguments.operands_ = given.unmatched();
  } catch (const cxxopts::exceptions::exception& error) {
    throw Usage(error.what());
  }
  if (arguments.has("help")) return arguments;
  check_operands(command, arguments.operands_);
  for (std::size_t at = 0; at < command.operands.size(); ++at) {
    check_choice(std::string(command.operands[at].name), arguments.operands_[at],
                 command.operands[at].choices);
  }
  return arguments;
}

bool Arguments::has(std::string_view option) const {
  return flags_.contains(option) || values_.contains(option);
}

std::string Arguments::text(std::string_view option, std::string_view otherwise) const {
  const auto given = values_.find(option);
  return given != values_.end() ? given->second : std::string(otherwise);
}

std::uint64_t Arguments::number(std::string_view option, std::uint64_t otherwise, std::uint64_t least,
                                std::uint64_t most) const {
  const auto given = values_.find(option);
  if (given == values_.end()) return otherwise;
  const char* const end = given->second.data() + given->second.size();
  std::uint64_t number = 0;
  const auto [stop, error] = std::from_chars(given->second.data(), end, number);
  if (error != std::errc() || stop != end || number < least || number > most) {
    throw Usage(dashed(given->first) + " is a whole number from " + std::to_string(least) + " to " +
                std::to_string(most) + ", not '" + given->second + "'");
  }
  return number;
}

std::uint64_t Arguments::bytes(std::string_view option, std::uint64_t otherwise, std::uint64_t most) const {
  const auto given = values_.find(option);
  if (given == values_.end()) return otherwise;
  const char* const end = given->second.data() + given->second.size();
  std::uint64_t number = 0;
  const auto [stop, error] = std::from_chars(given->second.data(), end, number);
  const std::string_view unit(stop, static_cast<std::size_t>(end - stop));
  constexpr std::string_view units = "KMGT";
  const std::size_t power = unit.empty() ? 0 : units.find(unit.front()) + 1;
  const bool plain = unit.empty() || (unit.size() == 1 && power != 0);
  if (error != std::errc() || !plain || number > (most >> (10 * power))) {
    throw Usage(dashed(given->first) + " is a number of bytes such as 4096, 64K, 512M or 4G, at most " +
                std::to_string(most) + ", not '" + given->second + "'");
  }
  return number << (10 * power);
}

std::vector<std::string> Arguments::list(std::string_view option) const {
  return split(text(option), ',');
}

double Arguments::seconds(std::string_view option, double otherwise, double most) const {
  const auto given = values_.find(option);
  if (given == values_.end()) return otherwise;
  const char* const end = given->second.data() + given->second.size();
  double number = 0;
  const auto [stop, error] = std::from_chars(given->second.data(), end, number);
  if (error != std::errc() || stop != end || !(number >= 0.01 && number <= most)) {
    throw Usage(dashed(given->first) + " is a number of seconds from 0.01 to " +
                std::to_string(static_cast<std::uint64_t>(most)) + ", not '" + given->second + "'");
  }
  return number;
}

std::string Arguments::manager() const {
  const char* const named = std::getenv("SUBLET_MANAGER");
  return text("manager", named != nullptr && *named != '\0' ? named : "http://127.0.0.1:7400");
}

std::pair<std::string, std::string> parse_function(const std::string& text) {
  const std::size_t at = text.find('@');
  if (at == 0 || at == std::string::npos || at + 1 == text.size()) {
    throw Usage("'" + text + "' is not of the form NAME@VERSION");
  }
  return {text.substr(0, at), text.substr(at + 1)};
}

std::string nearest(std::string_view word, const std::vector<std::string>& known) {
  constexpr std::size_t far = 3;
  std::string best;
  std::size_t least = std::min(far, word.size() / 2 + 1);
  for (const std::string& candidate : known) {
    if (word.size() > 1 && candidate.starts_with(word)) return candidate;
    std::vector<std::size_t> row(candidate.size() + 1);  // Levenshtein's distance, row by row.
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 0; i < word.size(); ++i) {
      std::size_t diagonal = row[0];
      row[0] = i + 1;
      for (std::size_t j = 0; j < candidate.size(); ++j) {
        const std::size_t changed = diagonal + (word[i] == candidate[j] ? 0 : 1);
        diagonal = row[j + 1];
        row[j + 1] = std::min({changed, row[j] + 1, row[j + 1] + 1});
      }
    }
    if (row.back() < least) {
      least = row.back();
      best = candidate;
    }
  }
  return best;
}

std::string suggestion(std::string_view word, const std::vector<std::string>& known) {
  const std::string meant = nearest(word, known);
  return meant.empty() ? "" : "; did you mean '" + meant + "'?";
}

std::string synopsis(const Command& command) {
  std::string line(command.name);
  for (const Operand& operand : command.operands) {
    line.append(" ").append(operand.name).append(operand.count == Count::some ? "..." : "");
  }
  return line;
}

std::string help_text() {
  constexpr std::size_t commands_indent = 31;
  std::string text = "Usage: sublet COMMAND [OPTIONS]\n\nCommands:\n";
  for (const Command& command : commands()) {
    std::string left = std::string(2, ' ') + synopsis(command);
    left.resize(std::max(commands_indent, left.size() + 2), ' ');
    text += left + wrapped(command.summary, commands_indent) + '\n';
  }
  text +=
      "\n" + option_lines(program_options()) + "\n" + wrapped(manager_address_text, 0) + "\n\nExit codes:\n";
  for (const ExitCode& code : exit_codes()) {
    std::string left = "  " + std::to_string(code.code);
    left.resize(7, ' ');
    text += left + std::string(code.about) + '\n';
  }
  return text;
}

std::string help_text(const Command& command) {
  std::string text = "Usage: sublet " + synopsis(command) + " [OPTIONS]\n\n" +
                     wrapped(std::string(command.summary) + ".", 0) + '\n';
  if (!command.description.empty()) text += wrapped(command.description, 0) + '\n';
  text += "\nOptions:\n" + option_lines(command.options) + option_lines(common_options());
  return text;
}

}  // namespace sublet::cli
