#pragma once

#include <cstddef>
#include <cxxopts.hpp>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.hpp"

/// What a program runs with, from its command line and from a file; one description, cxxopts', serves both.
///
/// The file: `key = value` lines, a key being the long name of an option; `#` or `;` at the begin of a line
/// starts a comment. A value is the rest of its line without blanks around it. A flag takes `true` or
/// `false`. After the keys a program may take sections, `[KIND NAME]` with keys of their own.
namespace sublet::config {

struct Entry {
  std::string key;
  std::string value;
  std::size_t line = 0;
};

struct Section {
  std::string kind;  ///< Empty: the lines before the first section.
  std::string name;
  std::size_t line = 0;
  std::vector<Entry> entries;
};

struct File {
  std::string path;
  std::vector<Section> sections;  ///< The first is that without a kind.

  /// "PATH:LINE: text", the form of every complaint about a file.
  [[nodiscard]] Error wrong(std::size_t line, const std::string& text) const;
};

/// @retval Errc::io_error         It cannot be read; the message says why.
/// @retval Errc::too_large        More than limits::config_bytes_max.
/// @retval Errc::invalid_argument A line that is none of the above, a key or a section twice; the message
/// names the
///                                line.
[[nodiscard]] Result<File> read_file(const std::string& path);
/// The same of a file's text.
[[nodiscard]] Result<File> parse(std::string path, std::string_view text);

/// A value of a section: a whole number up to `most`.
[[nodiscard]] Result<std::uint32_t> number_of(const File& file, const Entry& entry, std::uint32_t most);

struct Settings {
  cxxopts::ParseResult given;               ///< As if all had been said on the command line.
  std::vector<cxxopts::KeyValue> said;      ///< All of it, in order: of a key said twice the last counts.
  std::map<std::string, std::string> from;  ///< " (PATH:LINE)" for a key that the file decides.
  File file;

  /// To end a complaint about `key` with; empty when the command line decides it.
  [[nodiscard]] std::string origin(const std::string& key) const;
};

/// Adds --config and --print-config to a description.
void add_options(cxxopts::Options& described);

/// Reads the command line and the file that --config names. The command line wins.
/// @param outside_file Options that only a command line may have, beside those of add_options().
/// @param kinds        Sections that the program takes.
/// @throws cxxopts::exceptions::exception what is wrong with the command line.
[[nodiscard]] Result<Settings> read(cxxopts::Options& described, int argc, const char* const* argv,
                                    const std::vector<std::string>& outside_file,
                                    const std::vector<std::string>& kinds = {});

/// What is in force, as a file that says the same; what is not set stands there as a comment. Sections are
/// the program's to add. No option is a secret: secrets come in files of their own.
[[nodiscard]] std::string print(const cxxopts::Options& described, const Settings& settings,
                                const std::vector<std::string>& outside_file);

}  // namespace sublet::config
