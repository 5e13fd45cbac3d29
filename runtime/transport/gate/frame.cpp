#include "runtime/transport/gate/frame.hpp"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "runtime/base/assert.hpp"

namespace sublet::transport::gate {

bool send_frame(int socket, FrameType type, std::span<const std::span<const std::byte>> pieces,
                std::span<const int> descriptors) noexcept {
  std::array<std::byte, sizeof(FrameHeader) + body_bytes_max> buffer;
  std::size_t used = sizeof(FrameHeader);
  for (const std::span<const std::byte> piece : pieces) {
    SUBLET_ASSERT(piece.size() <= buffer.size() - used);
    if (!piece.empty()) std::memcpy(buffer.data() + used, piece.data(), piece.size());
    used += piece.size();
  }
  FrameHeader header;
  header.type = static_cast<std::uint16_t>(type);
  header.length = static_cast<std::uint16_t>(used - sizeof(FrameHeader));
  std::memcpy(buffer.data(), &header, sizeof(header));

  iovec vector{buffer.data(), used};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(descriptors_max * sizeof(int))> control{};
  if (!descriptors.empty()) {
    SUBLET_ASSERT(descriptors.size() <= descriptors_max);
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* const first = CMSG_FIRSTHDR(&message);
    first->cmsg_level = SOL_SOCKET;
    first->cmsg_type = SCM_RIGHTS;
    first->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(first), descriptors.data(), descriptors.size_bytes());
  }
  const int saved = errno;
  const ssize_t sent = ::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent > 0 && static_cast<std::size_t>(sent) < used) ::shutdown(socket, SHUT_RDWR);
  errno = saved;
  return sent == static_cast<ssize_t>(used);
}

}  // namespace sublet::transport::gate
