#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "client/cli/command.hpp"

/// What is made of the commands' descriptions: completion scripts and the man page.
namespace sublet::cli {

/// `sublet --print-man`: the man page, for the build.
[[nodiscard]] int print_man();
/// `sublet --print-names KIND [MANAGER]`: names of nodes, leases, functions or tenants, one a line, for a
/// shell that completes a word. Quick, and silent when no manager answers.
[[nodiscard]] int print_names(const std::vector<std::string>& words);

/// A shell's word for each kind of name; empty when nothing completes it.
[[nodiscard]] std::string_view kind_of(Completes completes);

[[nodiscard]] std::string bash_script();
[[nodiscard]] std::string zsh_script();
[[nodiscard]] std::string fish_script();

}  // namespace sublet::cli
