// The man page, from the commands' descriptions.
#include <iostream>
#include <string>

#include "client/cli/arguments.hpp"
#include "client/cli/completion.hpp"

namespace sublet::cli {

namespace {

/// Text in roff: no letter of it is taken for a request or an escape.
std::string roff(std::string_view text) {
  std::string out;
  for (const char letter : text) {
    switch (letter) {
      case '\\':
        out += "\\e";
        break;
      case '-':
        out += "\\-";
        break;
      case '\'':
        out += "\\(aq";
        break;
      case '`':
        out += "\\(ga";
        break;
      case '.':
        out += out.empty() ? "\\&." : ".";
        break;
      default:
        out += letter;
    }
  }
  return out;
}

void section(const std::string& title) {
  std::cout << ".SH " << title << '\n';
}

void item(const std::string& what, std::string_view about) {
  std::cout << ".TP\n" << what << '\n' << roff(about) << '\n';
}

void option_items(std::span<const Option> options) {
  for (const Option& option : options) {
    std::string what = "\\fB\\-\\-" + roff(option.name) + "\\fR";
    if (!option.argument.empty()) what += " \\fI" + roff(option.argument) + "\\fR";
    std::string about(option.about);
    if (!option.choices.empty()) about += ": " + std::string(option.choices);
    about += ".";
    if (!option.otherwise.empty()) about += " Default: " + std::string(option.otherwise) + ".";
    item(what, about);
  }
}

void command_section(const Command& command) {
  std::string line = "\\fBsublet " + std::string(command.name) + "\\fR";
  for (const Operand& operand : command.operands) {
    line += " \\fI" + roff(operand.name) + "\\fR" + (operand.count == Count::some ? "..." : "");
  }
  std::cout << ".SS " << line << " [\\fIOPTIONS\\fR]\n" << roff(command.summary) << ".\n";
  if (!command.operands.empty() && !command.operands.back().choices.empty()) {
    std::cout << "\\fI" << roff(command.operands.back().name) << "\\fR is one of "
              << roff(command.operands.back().choices) << ".\n";
  }
  if (!command.description.empty()) std::cout << ".PP\n" << roff(command.description) << '\n';
  option_items(command.options);
}

}  // namespace

int print_man() {
  std::cout << ".TH SUBLET 1 \"\" \"sublet " << SUBLET_VERSION << "\" \"Sublet\"\n";
  section("NAME");
  std::cout << "sublet \\- call functions on leased workers of a cluster, and look after the site\n";
  section("SYNOPSIS");
  std::cout << ".B sublet\n.I COMMAND\n[\\fIOPTIONS\\fR]\n.br\n.B sublet \\-\\-help\n.br\n.B sublet "
               "\\-\\-version\n";
  section("DESCRIPTION");
  std::cout << "A lease manager hands out warm workers on the idle parts of a cluster;\n.B sublet\n"
            << roff("asks it for them, calls functions on them, and shows and steers the site.") << '\n';
  std::cout << ".PP\n" << roff(manager_address_text) << '\n';
  section("COMMANDS");
  for (const Command& command : commands()) command_section(command);
  section("OPTIONS");
  std::cout << "Every command has these:\n";
  option_items(common_options());
  std::cout << ".PP\nIn the place of a command:\n";
  option_items(program_options());
  section("OUTPUT");
  std::cout << roff(json_text) << '\n';
  section("EXIT STATUS");
  for (const ExitCode& code : exit_codes())
    item("\\fB" + std::to_string(code.code) + "\\fR", std::string(code.about) + ".");
  section("ENVIRONMENT");
  for (const Told& variable : environment())
    item("\\fB" + std::string(variable.what) + "\\fR", variable.about);
  section("EXAMPLES");
  bool first = true;
  for (const Told& example : examples()) {
    std::cout << (first ? "" : ".PP\n") << roff(example.about) << "\n.PP\n.nf\n.RS\n"
              << roff(example.what) << "\n.RE\n.fi\n";
    first = false;
  }
  section("SEE ALSO");
  std::cout << "The documentation in docs/ of the source, docs/api.yaml for what \\-\\-json prints.\n";
  return exit_ok;
}

}  // namespace sublet::cli
