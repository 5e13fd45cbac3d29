#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <utility>

#include "runtime/base/file_descriptor.hpp"

namespace sublet::bench {

/// One end of a connected stream socket, TCP or unix. All throw std::runtime_error when the other end has
/// gone.
class Stream {
 public:
  explicit Stream(FileDescriptor socket) noexcept : socket_(std::move(socket)) {}
  /// Two ends over loopback, without Nagle's delay.
  [[nodiscard]] static std::pair<Stream, Stream> tcp_pair();
  [[nodiscard]] static std::pair<Stream, Stream> unix_pair();

  void send(std::span<const std::byte> data, std::chrono::microseconds hot) const;
  /// Fills `room` wholly.
  void receive(std::span<std::byte> room, std::chrono::microseconds hot) const;
  /// Takes what has come, at least one byte.
  [[nodiscard]] std::size_t receive_some(std::span<std::byte> room, std::chrono::microseconds hot) const;

 private:
  FileDescriptor socket_;
};

}  // namespace sublet::bench
