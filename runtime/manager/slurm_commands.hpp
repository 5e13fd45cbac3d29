#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "runtime/base/result.hpp"
#include "runtime/manager/slurm_picture.hpp"

namespace sublet::manager::slurm {

/// Runs a program to its end and returns what it printed. It gets no input, this process's environment with
/// the `changes` (NAME=VALUE; NAME alone: without) and ends when it takes too long or prints too much.
/// @param stop    A descriptor that becomes readable when the wait shall end.
/// @param program Looked up in PATH unless it has a slash.
/// @retval Errc::unavailable       It cannot be started, or failed: the first line that it said of that.
/// @retval Errc::timeout           It was ended after `timeout`.
/// @retval Errc::too_large         It was ended because it printed more than `bytes_max`.
/// @retval Errc::closed            `stop`.
[[nodiscard]] Result<std::string> run_program(const std::string& program,
                                              const std::vector<std::string>& arguments,
                                              const std::vector<std::string>& changes,
                                              std::chrono::milliseconds timeout, std::size_t bytes_max,
                                              int stop);

/// Asks sinfo and squeue. Blocks: as long as both may take. @param folder Where they are; empty: in PATH.
[[nodiscard]] Result<Picture> take_picture(const std::string& folder, int stop);

}  // namespace sublet::manager::slurm
