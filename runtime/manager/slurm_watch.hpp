#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/result.hpp"
#include "runtime/manager/slurm_picture.hpp"

namespace sublet::manager::slurm {

struct WatchOptions {
  std::chrono::seconds period{0};  ///< Between two looks; 0: never.
  std::string folder;              ///< Of sinfo and squeue; empty: in PATH.
};

/// Asks Slurm again and again, on a thread of its own. One a manager.
class Watch {
 public:
  /// On the watch's thread, in turn.
  using Seen = std::function<void(Result<Picture>)>;

  Watch(WatchOptions options, Seen seen);
  /// Ends what it has started and waits for that: about a second at most.
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  void run();

  WatchOptions options_;
  Seen seen_;
  FileDescriptor stop_;
  std::thread thread_;
};

}  // namespace sublet::manager::slurm
