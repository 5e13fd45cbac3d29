#pragma once

#include "executor/local/messages.hpp"
#include "runtime/base/file_descriptor.hpp"

namespace sublet::worker {

/// The life of one worker process: opens its transports, registers its memory, tells its agent, serves
/// one lease, counting into the usage page, ends. Returns the process's exit status. Main thread; starts the
/// steward thread.
[[nodiscard]] int run_worker(const local::Fork& spec, FileDescriptor agent, FileDescriptor usage);

/// The template process: loads what is dear, then forks a worker for each request of the agent until the
/// agent has gone. Starts no thread, opens no endpoint. Returns the exit status: in each forked worker as
/// well.
[[nodiscard]] int run_template(FileDescriptor agent);

}  // namespace sublet::worker
