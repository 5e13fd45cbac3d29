#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "benchmarks/frame/side.hpp"
#include "runtime/base/file_descriptor.hpp"

namespace sublet::bench {

/// The peer's end of the socket between a baseline and its peer: it carries what the two say to each other
/// before and between rounds.
class Control {
 public:
  explicit Control(FileDescriptor socket) noexcept : socket_(std::move(socket)) {}

  [[nodiscard]] int descriptor() const noexcept { return socket_.get(); }

  /// Throw std::runtime_error: the other end has gone.
  void send(const void* data, std::size_t bytes) const;
  void receive(void* data, std::size_t bytes) const;
  template <typename T>
  void send(const T& value) const {
    send(&value, sizeof value);
  }
  template <typename T>
  [[nodiscard]] T receive() const {
    T value;
    receive(&value, sizeof value);
    return value;
  }

 private:
  FileDescriptor socket_;
};

/// A process of this program that is the other end of a baseline: pinned, and killed with this object or
/// with the process that made it.
class Peer {
 public:
  /// Forks; so to be made before there are threads, and before libfabric is used. `serve` runs in the peer
  /// and gets each round's plan; it sets up what it needs when it is called first. What it throws reaches us.
  using Serve = std::function<void(const Control& control)>;
  Peer(const std::vector<int>& cores, const Serve& serve);
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  ~Peer();

  /// Waits for the peer's word that it is ready. Throws std::runtime_error with its reason when it is not.
  void wait_until_ready() const;
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  [[nodiscard]] const Control& control() const noexcept { return control_; }

 private:
  Peer(std::pair<FileDescriptor, FileDescriptor> ends, const std::vector<int>& cores, const Serve& serve);

  pid_t pid_ = -1;
  Control control_;
};

/// For Serve: tells wait_until_ready().
void say_ready(const Control& control);

}  // namespace sublet::bench
