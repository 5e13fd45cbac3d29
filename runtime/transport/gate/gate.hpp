#pragma once

#include <sys/socket.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/clock.hpp"
#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/result.hpp"
#include "runtime/transport/gate/frame.hpp"
#include "runtime/transport/gate/link.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::transport::gate {

using LinkPtr = std::shared_ptr<Link>;

/// A socket address of any family.
struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
  [[nodiscard]] const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
};

/// "127.0.0.1:4711", "[::1]:0": numeric host and port.
[[nodiscard]] Result<Address> parse_inet(const std::string& text);
[[nodiscard]] Result<Address> parse_unix(const std::string& path);
[[nodiscard]] std::string to_text(const Address& address);

/// What a hello or an accept carried. Hostile until checked.
struct Greeting {
  std::vector<std::byte> private_data;
  std::vector<std::byte> backend;
  std::vector<FileDescriptor> files;
};

/// Connection management over stream sockets of our own: who may come in, who lives, who said what
/// last. Backends keep their data path beside it. No call blocks on a socket. Service thread only;
/// what the owner thread needs is in Link.
class Gate {
 public:
  explicit Gate(const Timing& timing);
  ~Gate();
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  /// Starts to listen; returns the bound address. A unix socket's file is for its owner alone (0600)
  /// and removed with the gate.
  [[nodiscard]] Result<Address> listen(const Address& address);

  /// Hellos that wait for accept() or refuse().
  [[nodiscard]] std::vector<ConnectRequest> requests();
  struct Visitor {
    LinkPtr link;
    Greeting hello;
  };
  /// Takes a request out of the queue; its link lives from here on.
  [[nodiscard]] Result<Visitor> take(std::uint64_t request);
  [[nodiscard]] Status send_accept(Link& link, std::span<const std::byte> private_data,
                                   std::span<const std::byte> backend, std::span<const int> files);
  void refuse(std::uint64_t request, std::span<const std::byte> private_data) noexcept;

  struct Admission {
    LinkPtr link;
    Greeting acceptance;
    Address peer;
  };
  /// Connects and says hello; service() drives it. `files` only to unix sockets.
  [[nodiscard]] Result<std::uint64_t> start_connect(const Address& address,
                                                    std::span<const std::byte> private_data,
                                                    std::span<const std::byte> backend,
                                                    std::span<const int> files, TimePoint deadline);
  /// What came of it, once; nothing while it is under way before its deadline.
  [[nodiscard]] std::optional<Result<Admission>> take_admission(std::uint64_t id);
  /// Forgets an attempt that was not taken.
  void give_up(std::uint64_t id) noexcept;

  void service(std::chrono::milliseconds wait_max);
  /// Lets service() return when `event` is readable.
  [[nodiscard]] Status watch(int event);
  void forget(int event) noexcept;
  /// Serves until `event` is readable, the link is down or the deadline has passed.
  [[nodiscard]] Status wait_for(int event, const Link& link, TimePoint deadline);
  [[nodiscard]] int descriptor() const noexcept { return epoll_.get(); }

  /// Called at each service() until it returns true: what a closed connection still has to send. The
  /// argument says that the gate is about to go.
  using Lingering = std::function<bool(bool)>;
  /// Where owner threads leave what lingers; outlives the gate.
  class Mailbox {
   public:
    Mailbox();
    /// @return false when the gate has gone: the caller keeps it. Any thread.
    [[nodiscard]] bool post(Lingering lingering);
    [[nodiscard]] std::vector<Lingering> take_all();
    void close();
    [[nodiscard]] int descriptor() const noexcept { return event_.get(); }

   private:
    std::mutex mutex_;
    std::vector<Lingering> posted_;
    FileDescriptor event_;
    bool open_ = true;
  };
  [[nodiscard]] std::shared_ptr<Mailbox> mailbox() const noexcept { return mailbox_; }

 private:
  enum class Stage : std::uint8_t {
    connecting,  ///< Ours: the socket is on its way; hello follows.
    asking,      ///< Ours: hello sent, the answer is due.
    answered,    ///< Ours: accepted, not yet taken.
    greeting,    ///< A visitor whose hello is due.
    waiting,     ///< A visitor that waits for our answer.
    live,
    ended,  ///< Ours: failed, not yet taken.
  };
  struct Entry {
    LinkPtr link;
    Stage stage = Stage::ended;
    TimePoint since;     ///< Of the stage.
    TimePoint heard;     ///< Last byte.
    TimePoint pinged;    ///< Last ping of ours.
    TimePoint deadline;  ///< Ours: of the answer.
    Address peer;        ///< Ours.
    Greeting greeting;   ///< The peer's; ours while connecting.
    Error failure{Errc::unavailable};
    std::array<std::byte, sizeof(FrameHeader) + body_bytes_max> buffer{};
    std::size_t buffered = 0;
  };
  using Entries = std::map<std::uint64_t, Entry>;

  [[nodiscard]] std::uint64_t add(FileDescriptor socket, Stage stage, std::uint32_t events);
  void remove(std::uint64_t id) noexcept;
  void end(std::uint64_t id, Error failure) noexcept;
  void admit_all();
  [[nodiscard]] bool make_room() noexcept;
  void on_event(std::uint64_t id, std::uint32_t events);
  void on_connected(std::uint64_t id, Entry& entry);
  [[nodiscard]] bool on_live_frame(Entry& entry, FrameType type, std::span<const std::byte> body);
  void receive(std::uint64_t id);
  [[nodiscard]] ssize_t receive_some(Entry& entry);
  [[nodiscard]] bool parse(std::uint64_t id);
  [[nodiscard]] bool on_frame(std::uint64_t id, FrameType type, std::span<const std::byte> body);
  [[nodiscard]] bool on_answer(std::uint64_t id, Entry& entry, FrameType type,
                               std::span<const std::byte> body);
  void make_live(Entry& entry);
  void sweep(TimePoint now);
  void serve_lingering(bool at_end);
  [[nodiscard]] static bool is_attempt(Stage stage) noexcept;  ///< One of ours that was not taken.
  void say_hello(std::uint64_t id, Entry& entry, std::span<const int> files);

  Timing timing_;
  FileDescriptor epoll_;
  FileDescriptor listener_;
  bool listener_paused_ = false;
  std::string unlink_at_end_;
  std::uint64_t next_id_ = 8;  ///< Below are the own descriptors of the gate (internal.hpp).
  Entries entries_;
  std::vector<std::uint64_t> fresh_requests_;
  TimePoint last_service_;
  TimePoint next_sweep_;
  std::shared_ptr<Mailbox> mailbox_;
  std::vector<Lingering> lingering_;
};

}  // namespace sublet::transport::gate
