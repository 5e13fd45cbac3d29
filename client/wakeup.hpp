#pragma once

#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/result.hpp"

namespace sublet::client {

/// A descriptor that one thread sleeps on and others make readable.
class Wakeup {
 public:
  [[nodiscard]] static Result<Wakeup> create();
  /// Any thread. Never blocks.
  void wake() const noexcept;
  /// Makes it unreadable again.
  void drain() const noexcept;
  [[nodiscard]] int descriptor() const noexcept { return file_.get(); }

 private:
  FileDescriptor file_;
};

}  // namespace sublet::client
