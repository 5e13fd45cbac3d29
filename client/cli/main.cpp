#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <exception>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "client/cli/arguments.hpp"
#include "client/cli/call_failed.hpp"
#include "client/cli/completion.hpp"
#include "client/cli/json.hpp"
#include "client/cli/manager.hpp"
#include "client/cli/terminal.hpp"
#include "runtime/base/result.hpp"

namespace sublet::cli {

namespace {

int exit_code_of(Errc code) {
  switch (code) {
    case Errc::not_found:
      return exit_not_found;
    case Errc::no_capacity:
    case Errc::queue_full:
      return exit_no_capacity;
    default:
      return exit_failed;
  }
}

/// A descriptor that the caller has closed would become our connection's, and what we print would go there.
void fill_standard_descriptors() {
  for (int descriptor = ::open("/dev/null", O_RDONLY); descriptor >= 0;
       descriptor = ::open("/dev/null", O_RDONLY)) {
    if (descriptor <= STDERR_FILENO) continue;
    ::close(descriptor);
    return;
  }
}

int run(const Command& command, const std::vector<std::string>& words) {
  const Arguments given = Arguments::parse(command, words);
  if (!given.has("help")) return command.run(given);
  std::cout << help_text(command);
  return exit_ok;
}

const Command& command_named(const std::string& name) {
  if (const Command* const command = find_command(name)) return *command;
  std::vector<std::string> known;
  for (const Command& command : commands()) known.emplace_back(command.name);
  throw Usage("there is no command '" + name + "'" + suggestion(name, known));
}

int run(const std::vector<std::string>& words) {
  if (words.empty()) throw Usage("a command is missing");
  const std::string& first = words.front();
  const std::vector<std::string> rest(words.begin() + 1, words.end());
  if (first == "--help" || first == "-h" || first == "help") {
    std::cout << (rest.empty() ? help_text() : help_text(command_named(rest.front())));
    return exit_ok;
  }
  if (first == "--version") {
    std::cout << "sublet " << SUBLET_VERSION << '\n';
    return exit_ok;
  }
  if (first == "--print-man") return print_man();
  if (first == "--print-names") return print_names(rest);
  if (first.starts_with('-')) throw Usage("the command comes before its options, such as " + first);
  return run(command_named(first), rest);
}

/// Turns what goes wrong into a message and an exit code.
class Reporter {
 public:
  explicit Reporter(bool json) : json_(json) {}

  int report(int code, std::string_view name, const std::string& message) const {
    if (json_) {
      std::cout << JsonObject().text("error", name).text("message", message).str() << '\n';
    } else {
      std::cerr << "sublet: " << printable(message, true) << '\n';
    }
    return code;
  }
  int report(int code, const Error& error) const {
    const std::string detail(error.detail().empty() ? explain(error.code()) : error.detail());
    return report(code, name(error.code()), json_ ? detail : error.message());
  }

 private:
  bool json_;
};

int run_and_report(const std::vector<std::string>& words) {
  bool json = false;
  for (const std::string& word : words) json = json || word == "--json";
  const Reporter reporter(json);
  try {
    return run(words);
  } catch (const Usage& error) {
    const bool known = !words.empty() && find_command(words.front()) != nullptr;
    const std::string help = known ? "sublet " + words.front() + " --help" : "sublet --help";
    return reporter.report(exit_usage, "usage", std::string(error.what()) + "; see " + help);
  } catch (const Unreachable& error) {
    return reporter.report(exit_unreachable, error.error());
  } catch (const CallFailed& error) {
    return reporter.report(exit_call_failed, error.error());
  } catch (const Exception& error) {
    return reporter.report(exit_code_of(error.code()), error.error());
  } catch (const std::exception& error) {
    return reporter.report(exit_failed, "failed", error.what());
  }
}

}  // namespace

}  // namespace sublet::cli

int main(int argc, char** argv) {
  namespace cli = sublet::cli;
  cli::fill_standard_descriptors();
  const std::vector<std::string> words(argv + (argc > 0 ? 1 : 0), argv + argc);
  const int code = cli::run_and_report(words);
  errno = 0;
  if (std::cout.flush()) return code;
  std::cerr << "sublet: cannot write to standard output" << (errno != 0 ? ": " : "")
            << (errno != 0 ? std::strerror(errno) : "") << '\n';
  return code == cli::exit_ok ? cli::exit_failed : code;
}
