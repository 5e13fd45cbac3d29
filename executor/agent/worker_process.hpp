#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "executor/local/messages.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/base/file_descriptor.hpp"

namespace sublet::agent {

/// What the agent knows of one worker process.
struct WorkerProcess {
  enum class State : std::uint8_t {
    starting,   ///< Forked, not ready yet.
    ready,      ///< Published.
    attaching,  ///< A client's token is with us: cores or the function are awaited.
    serving,    ///< Has its lease's cores and memory.
    ending,     ///< Told to end, or has said that it ends.
  };

  std::uint32_t id = 0;
  std::uint64_t usage = 0;  ///< Its page in the UsageBook.
  pid_t pid = -1;           ///< -1 until the worker has said so.
  FileDescriptor socket;
  State state = State::starting;
  std::map<std::string, std::string> endpoints;  ///< Transport to address.
  std::string shm_path;                          ///< Removed after the worker.
  std::uint32_t function = 0;                    ///< Loaded before it was published; 0: none.
  std::optional<wire::Token> token;
  std::string transport;  ///< By which its client came; empty: it has none.
  TimePoint lease_end;    ///< Of the token, when it was granted.
  std::vector<int> cores;
  std::uint64_t memory_bytes = 0;
  std::optional<TimePoint> kill_at;    ///< SIGKILL then.
  std::optional<TimePoint> refuse_at;  ///< While attaching: no cores or function by then.
  std::optional<local::EndReason> ended;
  std::optional<local::EndReason> told;
};

/// Binds all threads of the process to the cores; threads it starts later inherit them.
[[nodiscard]] Status bind_to_cores(pid_t pid, const std::vector<int>& cores);
/// Whether all of them are bound to these cores and no others; true of a process that has gone.
[[nodiscard]] bool is_bound_to(pid_t pid, const std::vector<int>& cores);
/// Lets the process's private memory grow by `bytes` over what it has now (RLIMIT_DATA): an allocation
/// beyond that fails inside the function, which then fails with a message.
[[nodiscard]] Status limit_memory(pid_t pid, std::uint64_t bytes);

}  // namespace sublet::agent
