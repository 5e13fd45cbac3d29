#include "client/cli/command.hpp"

#include <array>

namespace sublet::cli {

namespace {

constexpr std::array common{
    Option{.name = "manager",
           .argument = "URL",
           .about = "The manager's address, http://HOST:PORT",
           .otherwise = "$SUBLET_MANAGER, else http://127.0.0.1:7400"},
    Option{.name = "json", .about = "Print JSON for programs instead of text for people"},
    Option{.name = "no-color", .about = "No colours, even on a terminal"},
    Option{.name = "help", .about = "Print what the command does and its options"},
};

constexpr std::array program{
    Option{.name = "help", .about = "Print the commands; with a command before it, the command's options"},
    Option{.name = "version", .about = "Print the version"},
};

constexpr std::array codes{
    ExitCode{exit_ok, "done"},
    ExitCode{exit_failed, "failed, for a reason that none of the others names"},
    ExitCode{exit_usage, "the command line is wrong"},
    ExitCode{exit_unreachable, "the manager cannot be reached"},
    ExitCode{exit_not_found, "the manager knows no such node, lease or function"},
    ExitCode{exit_no_capacity, "refused for now: nothing free fits, or a limit or quota is reached"},
    ExitCode{exit_call_failed, "a call did not succeed"},
    ExitCode{exit_still_busy, "drain --wait ended before the node was empty"},
    ExitCode{exit_interrupted, "interrupted by Ctrl-C or a request to end"},
};

constexpr std::array variables{
    Told{"SUBLET_MANAGER", "The manager's address when --manager is not given."},
    Told{"NO_COLOR", "When it is set to anything, there are no colours."},
};

constexpr std::array shown{
    Told{"sublet deploy hello@1 hello.so", "Make a function known to the site."},
    Told{"echo hello | sublet invoke hello@1 --input -", "Call it once."},
    Told{"sublet invoke hello@1 --input request --output reply --repeat 1000 --concurrency 8 --workers 2",
         "Call it a thousand times, eight at a time, on two workers, and print how long it took."},
    Told{"sublet nodes --json", "What the nodes lend, for a program."},
    Told{"sublet drain node7 --wait --wait-max 60", "Empty a node, for a minute at most."},
    Told{"sublet undrain node7", "Lend it again."},
    Told{"sublet usage --by tenant --csv", "Who used how much, for a spreadsheet."},
    Told{"sublet top --once", "One look at the whole site."},
    Told{"sublet doctor", "Find out why something does not work here."},
};

constexpr std::array one_function{Operand{"NAME@VERSION", Completes::function}};
constexpr std::array some_functions{Operand{"NAME@VERSION", Completes::function, Count::some}};
constexpr std::array some_nodes{Operand{"NODE", Completes::node, Count::some}};
constexpr std::array some_leases{Operand{"LEASE", Completes::lease, Count::some}};
constexpr std::array deploy_operands{Operand{"NAME@VERSION"}, Operand{"FILE.so", Completes::file}};
constexpr std::array shells{Operand{"SHELL", Completes::nothing, Count::one, "bash zsh fish"}};

constexpr std::array leases_options{
    Option{.name = "all", .about = "Show the leases that have ended, too"},
    Option{.name = "tenant",
           .argument = "TENANT",
           .about = "Show only this tenant's",
           .completes = Completes::tenant},
    Option{
        .name = "limit", .argument = "N", .about = "Show at most so many, up to 10000", .otherwise = "1000"},
};

constexpr std::array usage_options{
    Option{.name = "by",
           .argument = "WHAT",
           .about = "One row for each lease, worker, tenant or function",
           .otherwise = "tenant",
           .choices = "lease worker tenant function"},
    Option{.name = "tenant",
           .argument = "TENANT",
           .about = "Count only this tenant's",
           .completes = Completes::tenant},
    Option{.name = "function",
           .argument = "NAME[@VERSION]",
           .about = "Count only this function, or this version of it",
           .completes = Completes::function},
    Option{.name = "after",
           .argument = "LEASE",
           .about = "By lease and worker: only leases with a greater number than this",
           .completes = Completes::lease},
    Option{
        .name = "limit", .argument = "N", .about = "At most so many rows, up to 10000", .otherwise = "10000"},
    Option{.name = "csv", .about = "Print comma-separated values"},
};

constexpr std::array invoke_options{
    Option{.name = "input",
           .argument = "FILE",
           .about = "The input, - for standard input",
           .otherwise = "an empty input",
           .completes = Completes::file},
    Option{.name = "output",
           .argument = "FILE",
           .about = "Where the output of the last call goes, - for standard output",
           .otherwise = "-; with --json nowhere",
           .completes = Completes::file},
    Option{.name = "repeat",
           .argument = "N",
           .about = "Calls to make; more than one prints a summary to standard error",
           .otherwise = "1"},
    Option{.name = "concurrency", .argument = "N", .about = "Calls in flight", .otherwise = "1"},
    Option{.name = "workers", .argument = "N", .about = "Workers to lease", .otherwise = "1"},
    Option{.name = "cores", .argument = "N", .about = "Cores of each worker", .otherwise = "1"},
    Option{.name = "memory",
           .argument = "SIZE",
           .about = "Memory of each worker, such as 512M or 4G",
           .otherwise = "the node's share"},
    Option{.name = "tenant",
           .argument = "TENANT",
           .about = "On whose account",
           .otherwise = "default",
           .completes = Completes::tenant},
    Option{.name = "wait", .argument = "SECONDS", .about = "How long to wait for capacity", .otherwise = "5"},
    Option{
        .name = "deadline", .argument = "MS", .about = "Of each call, in milliseconds", .otherwise = "30000"},
    Option{.name = "transport",
           .argument = "LIST",
           .about = "Reach the workers by no other transport than these, separated by commas",
           .otherwise = "any",
           .choices = "tcp shm verbs fabric:PROVIDER",
           .list = true},
    Option{.name = "prefer-transport",
           .argument = "LIST",
           .about = "Reach them by these where that is possible, the first most",
           .otherwise = "shm on the same machine, then verbs, then tcp",
           .choices = "tcp shm verbs fabric:PROVIDER",
           .list = true},
    Option{.name = "forbid-transport",
           .argument = "LIST",
           .about = "Reach them by none of these",
           .choices = "tcp shm verbs fabric:PROVIDER",
           .list = true},
    Option{.name = "entry", .argument = "N", .about = "Which function of the module", .otherwise = "0"},
    Option{.name = "output-bytes",
           .argument = "SIZE",
           .about = "Room for the output of a call",
           .otherwise = "1M"},
};

constexpr std::array drain_options{
    Option{.name = "wait", .about = "Wait until the nodes hold nothing"},
    Option{.name = "wait-max",
           .argument = "SECONDS",
           .about = "How long --wait waits for all of them",
           .otherwise = "600"},
};

constexpr std::array top_options{
    Option{.name = "interval",
           .argument = "SECONDS",
           .about = "Between two looks, such as 0.5",
           .otherwise = "2"},
    Option{.name = "once", .about = "Print one look and end"},
};

constexpr std::array all{
    Command{"nodes",
            "List the nodes and what they lend",
            "A node that was lost stays listed until its name comes back.",
            {},
            {},
            &show_nodes},
    Command{"leases",
            "List the leases",
            "The newest first, and only active ones unless --all is given.",
            {},
            leases_options,
            &show_leases},
    Command{"functions", "List the functions that are deployed", "", {}, {}, &show_functions},
    Command{
        "tenants", "List the tenants, their shares, quotas and what they hold", "", {}, {}, &show_tenants},
    Command{"usage",
            "Tell what was used: calls, time inside functions, polling, leased time",
            "CALLS are those that a function returned from. EXECUTION is the time inside functions, POLLING "
            "the time "
            "that workers burned waiting for the next call, LEASED each worker's time from its grant to its "
            "end, CORES "
            "and GPUS the same times the cores and the GPUs of the worker.",
            {},
            usage_options,
            &show_usage},
    Command{"deploy",
            "Make a function known to the site",
            "FILE.so is a shared library that was built against sublet/function.h. The same bytes again are "
            "no error; "
            "other bytes need another version.",
            deploy_operands,
            {},
            &deploy},
    Command{"remove", "Remove functions that no lease uses", "", some_functions, {}, &remove_functions},
    Command{
        "invoke", "Lease workers, call a function and print its output",
        "With --repeat the same input is sent again and again, and a summary with latencies goes to standard "
        "error. Ctrl-C ends such a run in order: what is in flight is waited for, the lease is given back "
        "and the "
        "summary printed; the second Ctrl-C ends it at once. With --json the summary goes to standard "
        "output.",
        one_function, invoke_options, &invoke},
    Command{"revoke",
            "End leases by order",
            "Their calls in flight end as lease_revoked or not_started.",
            some_leases,
            {},
            &revoke},
    Command{"cordon",
            "Grant nothing more on nodes",
            "What they hold goes on until it ends by itself. A NODE is a name or an id.",
            some_nodes,
            {},
            &cordon},
    Command{"uncordon", "Take cordon back", "", some_nodes, {}, &uncordon},
    Command{"drain", "Empty nodes: grant nothing more there and end what they hold",
            "Calls in flight get the time that the agent was started with; the sessions they belong to go on "
            "elsewhere. "
            "A NODE is a name or an id.",
            some_nodes, drain_options, &drain},
    Command{"undrain", "Take drain back", "", some_nodes, {}, &undrain},
    Command{"top",
            "Watch nodes, leases and tenants live",
            "q or Ctrl-C ends it. When standard output is no terminal, and with --json, it prints one look.",
            {},
            top_options,
            &top},
    Command{"doctor",
            "Find out what works on this machine and what does not, and what to do about it",
            "Looks at the transports, limits and versions of this machine and at the manager. Exit status 1 "
            "when a check "
            "fails; what is only a warning may still be what you want.",
            {},
            {},
            &doctor},
    Command{"completion",
            "Print the completion script of a shell",
            "For bash: source <(sublet completion bash). An installed package has these scripts where shells "
            "look for "
            "them.",
            shells,
            {},
            &completion},
};

}  // namespace

const std::string_view manager_address_text =
    "The manager's address is --manager URL, else the environment's SUBLET_MANAGER, else "
    "http://127.0.0.1:7400.";
const std::string_view json_text =
    "With --json exactly one JSON document goes to standard output: the manager's answer as docs/api.yaml "
    "describes it, "
    "or, when the command fails, {\"error\": NAME, \"message\": TEXT}. Only progress may go to standard "
    "error then.";

std::span<const Command> commands() {
  return all;
}
std::span<const Option> common_options() {
  return common;
}
std::span<const Option> program_options() {
  return program;
}
std::span<const ExitCode> exit_codes() {
  return codes;
}
std::span<const Told> environment() {
  return variables;
}
std::span<const Told> examples() {
  return shown;
}

const Command* find_command(std::string_view name) {
  for (const Command& command : all) {
    if (command.name == name) return &command;
  }
  return nullptr;
}

}  // namespace sublet::cli
