#pragma once

#include <span>
#include <stdexcept>
#include <string_view>

/// The descriptions of the commands: the one source of parsing, --help, the man page and the completions.
namespace sublet::cli {

class Arguments;

// What the program's exit status says; exit_codes below tells it to people.
inline constexpr int exit_ok = 0;
inline constexpr int exit_failed = 1;
inline constexpr int exit_usage = 2;
inline constexpr int exit_unreachable = 3;
inline constexpr int exit_not_found = 4;
inline constexpr int exit_no_capacity = 5;
inline constexpr int exit_call_failed = 6;
inline constexpr int exit_still_busy = 7;
inline constexpr int exit_interrupted = 130;

/// What a word of the command line names, so that a shell can complete it.
enum class Completes { nothing, file, node, lease, function, tenant };

struct Option {
  std::string_view name;           ///< Without the dashes.
  std::string_view argument = "";  ///< What follows it; empty: a flag.
  std::string_view about;
  std::string_view otherwise = "";  ///< The default; empty: none.
  Completes completes = Completes::nothing;
  /// The values that there are, separated by blanks; "NAME:WORD" with any WORD; empty: any.
  std::string_view choices = "";
  bool list = false;  ///< Takes several of the choices, separated by commas.
};

enum class Count { one, some };  ///< `some`: one or more.

struct Operand {
  std::string_view name;
  Completes completes = Completes::nothing;
  Count count = Count::one;
  std::string_view choices = "";
};

struct Command {
  std::string_view name;
  std::string_view summary;      ///< A sentence without its full stop.
  std::string_view description;  ///< More of it, for --help and the man page.
  std::span<const Operand> operands;
  std::span<const Option> options;  ///< Without those that every command has.
  int (*run)(const Arguments& given);
};

struct Told {
  std::string_view what;
  std::string_view about;
};
struct ExitCode {
  int code;
  std::string_view about;
};

/// In the order of --help.
[[nodiscard]] std::span<const Command> commands();
[[nodiscard]] const Command* find_command(std::string_view name);
/// --manager, --json, --no-color, --help.
[[nodiscard]] std::span<const Option> common_options();
/// --help and --version, in the place of a command.
[[nodiscard]] std::span<const Option> program_options();
[[nodiscard]] std::span<const ExitCode> exit_codes();
[[nodiscard]] std::span<const Told> environment();
/// Command lines that tests run as they stand.
[[nodiscard]] std::span<const Told> examples();
extern const std::string_view manager_address_text;
extern const std::string_view json_text;

/// The command line is wrong.
class Usage : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The commands. Each prints to standard output, returns an exit code, and throws Usage, Unreachable,
// CallFailed or sublet::Exception, which main() turns into a message and an exit code.
[[nodiscard]] int show_nodes(const Arguments& given);
[[nodiscard]] int show_leases(const Arguments& given);
[[nodiscard]] int show_functions(const Arguments& given);
[[nodiscard]] int show_tenants(const Arguments& given);
[[nodiscard]] int show_usage(const Arguments& given);
[[nodiscard]] int deploy(const Arguments& given);
[[nodiscard]] int remove_functions(const Arguments& given);
[[nodiscard]] int invoke(const Arguments& given);
[[nodiscard]] int revoke(const Arguments& given);
[[nodiscard]] int cordon(const Arguments& given);
[[nodiscard]] int uncordon(const Arguments& given);
[[nodiscard]] int drain(const Arguments& given);
[[nodiscard]] int undrain(const Arguments& given);
[[nodiscard]] int top(const Arguments& given);
[[nodiscard]] int doctor(const Arguments& given);
[[nodiscard]] int completion(const Arguments& given);

}  // namespace sublet::cli
