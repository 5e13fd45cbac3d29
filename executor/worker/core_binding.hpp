#pragma once

namespace sublet::worker {

/// While one lives, sched_setaffinity() does nothing in this program, and says that it did: some libraries
/// that libfabric pulls in run on one core after the other while they load, those of a batch job, perhaps,
/// which this node's agent was told to leave. No protection from a library that enters the kernel by itself.
/// One at a time.
class CoreBinding {
 public:
  CoreBinding() noexcept;
  ~CoreBinding();
  CoreBinding(const CoreBinding&) = delete;
  CoreBinding& operator=(const CoreBinding&) = delete;
};

}  // namespace sublet::worker
