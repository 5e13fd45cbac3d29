// Packets of a worker to its agent: the worker runs a tenant's code and may send anything.

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "executor/local/messages.hpp"
#include "tests/fuzz/input.hpp"

using namespace sublet;

namespace {

template <typename T>
std::size_t text_of(const local::Packet& packet, auto... members) {
  const auto message = packet.as<T>();
  if (!message) return 0;
  SUBLET_ASSERT(packet.size == sizeof(T) && packet.kind() == message->kind);
  return (local::get((*message).*members).size() + ... + 0);
}

template <typename T>
std::size_t endpoints_of(const local::Packet& packet, local::Endpoints T::*member) {
  std::size_t size = 0;
  if (auto message = packet.as<T>()) {
    for (const local::Endpoint& each : (*message).*member)
      size += local::get(each.transport).size() + local::get(each.address).size();
    if (local::add((*message).*member, "tcp", "127.0.0.1:0"))
      SUBLET_ASSERT(!((*message).*member)[0].transport.empty());
  }
  return size;
}

std::size_t look_at(const local::Packet& packet) {
  SUBLET_ASSERT(packet.size <= packet.bytes.size());
  if (const auto ended = packet.as<local::Ended>(); ended) SUBLET_ASSERT(!local::name(ended->reason).empty());
  return text_of<local::Fork>(packet, &local::Fork::function_path) +
         endpoints_of<local::Fork>(packet, &local::Fork::listen) + text_of<local::Forked>(packet) +
         endpoints_of<local::Ready>(packet, &local::Ready::endpoints) + text_of<local::Attach>(packet) +
         text_of<local::Attached>(packet, &local::Attached::text, &local::Attached::function_path) +
         text_of<local::Serving>(packet, &local::Serving::transport) + text_of<local::End>(packet) +
         text_of<local::Ended>(packet, &local::Ended::text);
}

/// As send_packet(), which would refuse what a hostile sender does not: many descriptors in one packet.
void send(int socket, std::string_view bytes, std::size_t files) {
  iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  constexpr std::size_t files_max = 3;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(files_max * sizeof(int))> control{};
  files = std::min(files, files_max);
  if (files > 0) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(files * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(files * sizeof(int));
    const std::array<int, files_max> sent{socket, socket, socket};
    std::memcpy(CMSG_DATA(header), sent.data(), files * sizeof(int));
  }
  static_cast<void>(::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT));
}

/// Equal before and after: no descriptor was left behind.
int lowest_free_descriptor() {
  const FileDescriptor probe(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0));
  return probe.get();
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const int before = lowest_free_descriptor();
  {
    fuzz::Input input(data, size);
    const local::SocketPair pair = local::make_socket_pair().value();
    while (!input.empty()) {
      const std::size_t files = input.number() % 4;
      send(pair.first.get(), input.take(input.number<std::uint16_t>()), files);
      const Result<local::Packet> packet = local::receive(pair.second.get());
      if (packet) SUBLET_ASSERT(look_at(*packet) < sizeof(packet->bytes));
    }
  }
  SUBLET_ASSERT(lowest_free_descriptor() == before);
  return 0;
}
