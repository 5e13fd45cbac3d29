// Frames of a peer at the gate: as a visitor of a listener, and as the listener that is visited.

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "runtime/transport/gate/gate.hpp"
#include "tests/fuzz/input.hpp"

using namespace sublet;
using transport::gate::Gate;

namespace {

constexpr std::chrono::milliseconds no_wait{0};
constexpr std::size_t piece_bytes_max = 2048;  // Fits the socket's buffer: a send never waits.

std::filesystem::path& directory() {
  static std::filesystem::path path = [] {
    std::string name = std::filesystem::temp_directory_path() / "sublet-fuzz-XXXXXX";
    SUBLET_ASSERT(::mkdtemp(name.data()) != nullptr);
    std::atexit([] { std::filesystem::remove_all(directory()); });
    return std::filesystem::path(name);
  }();
  return path;
}

void send_some(const FileDescriptor& peer, std::string_view bytes, std::size_t files) {
  iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  constexpr std::size_t files_max = 32;  // More than a handshake may carry.
  alignas(cmsghdr) std::array<char, CMSG_SPACE(files_max * sizeof(int))> control{};
  files = std::min(files, files_max);
  if (files > 0 && !bytes.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(files * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(files * sizeof(int));
    for (std::size_t i = 0; i < files; ++i) {
      // Not the socket itself: the gate would hold its peer's end, and see no hang-up before its time is
      // over.
      static const FileDescriptor file(::open("/dev/null", O_RDWR | O_CLOEXEC));
      const int sent = file.get();
      std::memcpy(CMSG_DATA(header) + i * sizeof(int), &sent, sizeof(sent));
    }
  }
  static_cast<void>(::sendmsg(peer.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT));
}

void check(const Gate::Visitor& visitor) {
  SUBLET_ASSERT(visitor.hello.private_data.size() <= limits::connect_private_bytes);
  SUBLET_ASSERT(visitor.hello.files.size() <= transport::gate::descriptors_max);
  if (!visitor.link->up()) {
    SUBLET_ASSERT(visitor.link->last_words().size() <= transport::gate::last_words_max);
  }
}

void visit(fuzz::Input& input) {
  static const transport::gate::Address address =
      transport::gate::parse_unix((directory() / "visited").string()).value();
  Gate gate({});
  SUBLET_ASSERT(gate.listen(address).ok());
  const FileDescriptor peer(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  SUBLET_ASSERT(::connect(peer.get(), address.get(), address.length) == 0);
  gate.service(no_wait);
  std::vector<Gate::Visitor> visitors;
  while (!input.empty()) {
    const auto choice = input.number();
    send_some(peer, input.take(std::min<std::size_t>(input.number<std::uint16_t>(), piece_bytes_max)),
              choice >> 3);
    gate.service(no_wait);
    for (const transport::ConnectRequest& request : gate.requests()) {
      SUBLET_ASSERT(request.private_data.size() <= limits::connect_private_bytes);
      if (choice % 4 == 0) {
        gate.refuse(request.id, {});
      } else if (Result<Gate::Visitor> visitor = gate.take(request.id); visitor) {
        static_cast<void>(gate.send_accept(*visitor->link, {}, {}, {}));
        visitors.push_back(*std::move(visitor));
      }
    }
    for (const Gate::Visitor& visitor : visitors) check(visitor);
  }
}

void be_visited(fuzz::Input& input) {
  static const transport::gate::Address address =
      transport::gate::parse_unix((directory() / "visitor").string()).value();
  static const FileDescriptor listener = [] {
    FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SUBLET_ASSERT(::bind(socket.get(), address.get(), address.length) == 0);
    SUBLET_ASSERT(::listen(socket.get(), 8) == 0);
    return socket;
  }();
  std::thread answering([&] {
    const FileDescriptor peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    while (!input.empty()) {
      const auto files = input.number();
      send_some(peer, input.take(std::min<std::size_t>(input.number<std::uint16_t>(), piece_bytes_max)),
                files % 32);
    }
  });
  {
    Gate gate({});
    const Result<std::uint64_t> attempt =
        gate.start_connect(address, {}, {}, {}, SteadyClock::now() + std::chrono::seconds(20));
    SUBLET_ASSERT(attempt.ok());
    std::optional<Result<Gate::Admission>> taken;
    while (!(taken = gate.take_admission(*attempt))) gate.service(std::chrono::seconds(1));
    const Result<Gate::Admission>& admission = *taken;
    SUBLET_ASSERT(admission.ok() || admission.error().code() != Errc::timeout);
    if (admission) {
      SUBLET_ASSERT(admission->acceptance.private_data.size() <= limits::accept_private_bytes);
      gate.service(no_wait);
    }
  }
  answering.join();
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  if (input.number() % 2 == 0) {
    visit(input);
  } else {
    be_visited(input);
  }
  return 0;
}
