#pragma once

#include <optional>
#include <string>

#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/result.hpp"

namespace sublet::agent {

/// The socket in the state directory over which this machine's batch system says what the node may lend. Only
/// root and the agent's own user are heard. Not thread-safe.
class OrderSocket {
 public:
  OrderSocket() = default;
  ~OrderSocket();
  OrderSocket(const OrderSocket&) = delete;
  OrderSocket& operator=(const OrderSocket&) = delete;
  /// The last thing that the agent needs for a start: whoever finds the socket can give orders.
  [[nodiscard]] Status listen(const std::string& state_dir);
  /// Readable when somebody comes.
  [[nodiscard]] int descriptor() const noexcept { return listener_.get(); }
  /// The next connection, non-blocking; nothing when there is none. Strangers are turned away.
  [[nodiscard]] std::optional<FileDescriptor> accept();

 private:
  FileDescriptor listener_;
  std::string path_;
};

/// Connects to the agent that uses the directory. Blocks for at most a moment.
/// @retval Errc::not_found No agent listens there.
[[nodiscard]] Result<FileDescriptor> connect_to_agent(const std::string& state_dir);

}  // namespace sublet::agent
