#pragma once

#include <string>
#include <utility>
#include <vector>

namespace sublet::bench {

/// What figures depend on, by name. Texts only; "unknown" where the machine does not tell.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> machine_facts();

/// Processor time that other guests took from this machine, and all processor time, in ticks.
[[nodiscard]] std::pair<double, double> stolen_and_all();
/// Of the last minute.
[[nodiscard]] double load_average();

}  // namespace sublet::bench
