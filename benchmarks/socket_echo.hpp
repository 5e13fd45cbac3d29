#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/base/file_descriptor.hpp"

namespace sublet::bench {

/// The yardstick: a process that echoes over a plain TCP connection on loopback, both ends polling. Between
/// rounds it sleeps, so that it takes no core from what it is compared with.
class SocketEcho {
 public:
  /// Throws std::runtime_error when the machine refuses.
  SocketEcho();
  SocketEcho(const SocketEcho&) = delete;
  SocketEcho& operator=(const SocketEcho&) = delete;
  ~SocketEcho();

  /// Announces `calls` messages of `bytes` each.
  void begin(std::size_t bytes, std::uint64_t calls);
  /// Sends `message` and takes the answer into the same place.
  void exchange(std::span<std::byte> message);

 private:
  FileDescriptor connection_;
  pid_t pid_ = -1;
};

}  // namespace sublet::bench
