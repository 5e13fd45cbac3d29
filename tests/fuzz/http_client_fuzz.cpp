// Bytes of a server through the real client, over loopback.

#include <arpa/inet.h>
#include <sys/socket.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "runtime/base/file_descriptor.hpp"
#include "runtime/control/http_client.hpp"
#include "tests/fuzz/input.hpp"

using namespace sublet;

namespace {

// A closed connection keeps its two ports for a minute: a new address before they run out.
constexpr int runs_per_address = 10'000;

/// Answers each connection with the bytes set before, in pieces, and closes it.
class Liar {
 public:
  Liar() {
    std::thread([this] { serve(); }).detach();  // For the life of the process.
  }

  std::string url() {
    if (runs_++ % runs_per_address == 0) open();
    return url_;
  }
  void set_answer(std::string_view first, std::string_view second) {
    const std::lock_guard lock(mutex_);
    first_ = first;
    second_ = second;
  }

 private:
  void open() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr =
        htonl(INADDR_LOOPBACK + static_cast<std::uint32_t>(runs_ / runs_per_address) % 200);
    socklen_t length = sizeof(address);
    FileDescriptor listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SUBLET_ASSERT(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
    SUBLET_ASSERT(::listen(listener.get(), 8) == 0);
    SUBLET_ASSERT(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
    std::array<char, INET_ADDRSTRLEN> text{};
    ::inet_ntop(AF_INET, &address.sin_addr, text.data(), text.size());
    url_ = std::string("http://") + text.data() + ":" + std::to_string(ntohs(address.sin_port));
    const std::lock_guard lock(mutex_);
    if (listener_.valid()) ::shutdown(listener_.get(), SHUT_RDWR);  // Wakes the thread that accepts.
    fresh_ = std::move(listener);
    changed_.notify_all();
  }

  void serve() {
    while (true) {
      const FileDescriptor peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      std::unique_lock lock(mutex_);
      if (!peer.valid()) {
        changed_.wait(lock, [this] { return fresh_.valid(); });
        listener_ = std::move(fresh_);
        continue;
      }
      ::send(peer.get(), first_.data(), first_.size(), MSG_NOSIGNAL);
      ::send(peer.get(), second_.data(), second_.size(), MSG_NOSIGNAL);
    }
  }

  int runs_ = 0;
  std::string url_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string first_;
  std::string second_;
  FileDescriptor listener_;
  FileDescriptor fresh_;
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Liar& server = *new Liar;
  fuzz::Input input(data, size);
  const std::string_view first = input.take(input.number<std::uint16_t>());
  const std::string url = server.url();
  server.set_answer(first, input.rest());
  const auto client = control::HttpClient::create(url).value();
  const Result<std::string> body =
      control::body_of(client->request("POST", "/", "body", std::chrono::seconds(20)));
  SUBLET_ASSERT(body.ok() || body.error().code() != Errc::timeout);
  return 0;
}
