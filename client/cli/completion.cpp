// Completion scripts, from the commands' descriptions.
#include "client/cli/completion.hpp"

#include <chrono>
#include <iostream>
#include <span>
#include <sstream>

#include "client/cli/arguments.hpp"
#include "client/cli/manager.hpp"

namespace sublet::cli {

namespace {

/// A shell waits for it while a person types.
constexpr std::chrono::milliseconds names_timeout{500};

std::vector<Option> options_of(const Command& command) {
  std::vector<Option> options(command.options.begin(), command.options.end());
  options.insert(options.end(), common_options().begin(), common_options().end());
  return options;
}

/// What may stand there: "words tcp shm", "names nodes", "files", or "" for anything.
std::string source_of(Completes completes, std::string_view choices) {
  if (!choices.empty()) return "words " + std::string(choices);
  if (completes == Completes::file) return "files";
  return completes == Completes::nothing ? "" : "names " + std::string(kind_of(completes));
}

/// In single quotes, for a shell.
std::string quoted(std::string_view text) {
  std::string out = "'";
  for (const char letter : text) {
    if (letter == '\'') {
      out += "'\\''";
    } else {
      out += letter;
    }
  }
  return out + "'";
}

/// In single quotes, for fish.
std::string fish_quoted(std::string_view text) {
  std::string out = "'";
  for (const char letter : text) {
    if (letter == '\'' || letter == '\\') out += '\\';
    out += letter;
  }
  return out + "'";
}

std::string names_of_commands() {
  std::string names;
  for (const Command& command : commands()) names.append(names.empty() ? "" : " ").append(command.name);
  return names;
}

/// `case` branches for bash and zsh: what follows an option, what options and operands a command has.
std::string shell_cases() {
  std::ostringstream values;
  std::ostringstream operands;
  std::ostringstream flags;
  for (const Command& command : commands()) {
    std::string all;
    for (const Option& option : options_of(command)) {
      all.append(all.empty() ? "--" : " --").append(option.name);
      if (option.argument.empty()) continue;
      values << "    " << command.name << "/--" << option.name
             << ") value=" << quoted("takes " + source_of(option.completes, option.choices)) << " ;;\n";
    }
    flags << "    " << command.name << ") flags=" << quoted(all) << " ;;\n";
    for (std::size_t at = 0; at < command.operands.size(); ++at) {
      const Operand& operand = command.operands[at];
      operands << "    " << command.name << '/'
               << (operand.count == Count::some ? "*" : std::to_string(at + 1))
               << ") place=" << quoted(source_of(operand.completes, operand.choices)) << " ;;\n";
    }
  }
  return "  case $command/$option in\n" + values.str() + "  esac\n  case $command/$operand in\n" +
         operands.str() + "  esac\n  case $command in\n" + flags.str() + "  esac\n";
}

/// What bash and zsh share. Each calls _sublet_where with the words before the one that is completed, which
/// is in sublet_current.
std::string shell_common() {
  return R"sh(_sublet_look_up() {
  local value place flags
  value='' place='' flags=''
)sh" + shell_cases() +
         R"sh(  sublet_value=$value sublet_place=$place sublet_options=$flags
}

_sublet_names() {
  if [ -n "$sublet_manager" ]; then
    sublet --print-names "$1" "$sublet_manager" 2>/dev/null
  else
    sublet --print-names "$1" 2>/dev/null
  fi
}

# Sets sublet_source to what may stand where the cursor is, from the words before it.
_sublet_where() {
  local command option operand word skip
  command='' option='' operand=0 skip='' sublet_manager='' sublet_source=''
  shift
  if [ $# -eq 0 ]; then
    sublet_source="words )sh" +
         names_of_commands() + R"sh( --help --version"
    return
  fi
  command=$1
  shift
  for word in "$@"; do
    if [ -n "$skip" ]; then
      [ "$skip" = --manager ] && sublet_manager=$word
      skip=''
      continue
    fi
    case $word in
      --manager=*) sublet_manager=${word#--manager=} ;;
      --*=*) ;;
      --*)
        option=$word
        _sublet_look_up
        [ -n "$sublet_value" ] && skip=$word
        ;;
      *) operand=$((operand + 1)) ;;
    esac
  done
  option=$skip operand=$((operand + 1))
  _sublet_look_up
  if [ -n "$skip" ]; then
    sublet_source=${sublet_value#takes }
  else
    case $sublet_current in
      --*=*)
        option=${sublet_current%%=*}
        _sublet_look_up
        sublet_source=${sublet_value#takes }
        ;;
      -*) sublet_source="words $sublet_options" ;;
      *) sublet_source=$sublet_place ;;
    esac
  fi
}
)sh";
}

}  // namespace

std::string_view kind_of(Completes completes) {
  switch (completes) {
    case Completes::node:
      return "nodes";
    case Completes::lease:
      return "leases";
    case Completes::function:
      return "functions";
    case Completes::tenant:
      return "tenants";
    default:
      return "";
  }
}

std::string bash_script() {
  return "# Completion of sublet for bash. Made by `sublet completion bash`.\n" + shell_common() + R"sh(
_sublet() {
  local sublet_value sublet_place sublet_options sublet_manager sublet_source sublet_current prefix line
  local words=()
  # bash splits words at '@' and '=', so they are read from the line itself.
  line=${COMP_LINE:0:COMP_POINT}
  read -r -a words <<<"$line"
  sublet_current=''
  if [[ $line != *[[:space:]] ]]; then
    sublet_current=${words[-1]}
    unset 'words[-1]'
  fi
  _sublet_where "${words[@]}"
  prefix=''
  case $sublet_current in
    --*=*) prefix=${sublet_current%%=*}= ;;
  esac
  local wanted=${sublet_current#"$prefix"}
  COMPREPLY=()
  case $sublet_source in
    'words '*) mapfile -t COMPREPLY < <(compgen -W "${sublet_source#words }" -- "$wanted") ;;
    'names '*) mapfile -t COMPREPLY < <(compgen -W "$(_sublet_names "${sublet_source#names }")" -- "$wanted") ;;
    files)
      mapfile -t COMPREPLY < <(compgen -f -- "$wanted")
      compopt -o filenames 2>/dev/null
      ;;
  esac
  # bash replaces only what comes after the last of its separators, but an '@' with it.
  case $wanted in
    *[@:]*)
      local done=${wanted%"${wanted##*[@:]}"}
      COMPREPLY=("${COMPREPLY[@]#"${done%@}"}")
      ;;
  esac
}
complete -F _sublet sublet
)sh";
}

std::string zsh_script() {
  return "#compdef sublet\n# Completion of sublet for zsh. Made by `sublet completion zsh`.\n" +
         shell_common() + R"sh(
_sublet() {
  local sublet_value sublet_place sublet_options sublet_manager sublet_source sublet_current
  local -a found
  sublet_current=${words[CURRENT]}
  _sublet_where "${(@)words[1,CURRENT-1]}"
  case $sublet_current in
    --*=*) compset -P '*=' ;;
  esac
  case $sublet_source in
    'words '*) found=(${=sublet_source#words }) && compadd -a found ;;
    'names '*) found=(${(f)"$(_sublet_names ${sublet_source#names })"}) && compadd -a found ;;
    files) _files ;;
  esac
}
if [ "$funcstack[1]" = _sublet ]; then
  _sublet "$@"
else
  compdef _sublet sublet
fi
)sh";
}

std::string fish_script() {
  std::string script =
      "# Completion of sublet for fish. Made by `sublet completion fish`.\n"
      "complete -c sublet -f\n";
  const auto source = [](Completes completes, std::string_view choices) -> std::string {
    if (!choices.empty()) return " -x -a " + fish_quoted(choices);
    if (completes == Completes::file) return " -r -F";
    if (completes == Completes::nothing) return " -x";
    return " -x -a '(sublet --print-names " + std::string(kind_of(completes)) + " 2>/dev/null)'";
  };
  for (const Option& option : program_options()) {
    script += "complete -c sublet -n __fish_use_subcommand -l " + std::string(option.name) + " -d " +
              fish_quoted(option.about) + "\n";
  }
  for (const Command& command : commands()) {
    const std::string name(command.name);
    const std::string here = "complete -c sublet -n '__fish_seen_subcommand_from " + name + "'";
    script += "complete -c sublet -n __fish_use_subcommand -a " + name + " -d " +
              fish_quoted(command.summary) + "\n";
    for (const Operand& operand : command.operands) {
      if (operand.completes == Completes::nothing && operand.choices.empty()) continue;
      // -x belongs to options; an operand only has its words.
      const std::string words =
          operand.completes == Completes::file
              ? " -F"
              : source(operand.completes, operand.choices).substr(std::string_view(" -x").size());
      script += here + words + "\n";
    }
    for (const Option& option : options_of(command)) {
      script += here + " -l " + std::string(option.name) +
                (option.argument.empty() ? "" : source(option.completes, option.choices)) + " -d " +
                fish_quoted(option.about) + "\n";
    }
  }
  return script;
}

int completion(const Arguments& given) {
  if (given.json()) throw Usage("a script for a shell is no JSON: leave --json out");
  const std::string& shell = given.operands()[0];
  std::cout << (shell == "bash" ? bash_script() : shell == "zsh" ? zsh_script() : fish_script());
  return exit_ok;
}

int print_names(const std::vector<std::string>& words) {
  if (words.empty()) return exit_usage;
  const std::string& kind = words[0];
  try {
    Manager manager(words.size() > 1 ? words[1] : Arguments().manager(), names_timeout);
    const std::string body = manager.get("/v1/" + kind + (kind == "leases" ? "?state=active" : ""));
    std::vector<std::string> names;
    if (kind == "nodes") {
      for (const auto& node : manager.parse<api::Nodes>(body).nodes) names.push_back(node.name);
    } else if (kind == "functions") {
      for (const auto& function : manager.parse<api::Functions>(body).functions) {
        names.push_back(function.name + "@" + function.version);
      }
    } else if (kind == "tenants") {
      for (const auto& tenant : manager.parse<api::Tenants>(body).tenants) names.push_back(tenant.tenant);
    } else if (kind == "leases") {
      for (const auto& lease : manager.parse<api::Leases>(body).leases) {
        names.push_back(std::to_string(lease.lease));
      }
    }
    // The words go to a shell: only what a name may consist of.
    constexpr std::string_view allowed =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:@_-";
    for (const std::string& name : names) {
      if (name.find_first_not_of(allowed) == std::string::npos) std::cout << name << '\n';
    }
    return exit_ok;
  } catch (const std::exception&) {
    return exit_failed;
  }
}

}  // namespace sublet::cli
