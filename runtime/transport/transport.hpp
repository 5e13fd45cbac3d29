#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/limits.hpp"
#include "runtime/base/result.hpp"
#include "runtime/memory/region.hpp"

/// What a transport backend does. The meaning is fixed here and by tests/conformance; a backend finds
/// its own way to it.
///
/// Two kinds of thread use a transport. The *service thread* calls Transport::service, connect,
/// accept and reject: set-up, heartbeats, the death of peers. The *owner thread* of a connection calls
/// its write, poll, arm and close. They may be one thread. Ownership of a connection may move from
/// thread to thread when the caller orders the move (release/acquire).
namespace sublet::transport {

/// What a backend can do, checked once at connect.
struct Capabilities {
  std::size_t inline_bytes = 0;  ///< Writes up to this size leave the buffer free at once.
  std::size_t write_bytes_max = 0;
  /// So many writes are taken before queue_full, whether or not the owner polls and the peer takes them.
  std::size_t writes_in_flight = limits::slots_max - 1;
  bool progress_needs_polling = false;  ///< Data lands, and large writes go out, only while the owner polls.
  bool device_memory = false;  ///< register_device_memory() works: network cards reach a GPU's memory.
  bool same_machine_only = false;
};

/// Memory of the peer that it registered, as its handshake names it.
struct RemoteRegion {
  std::uint64_t base = 0;  ///< 0 on transports that address by offset.
  std::uint64_t key = 0;
  std::uint64_t bytes = 0;
};

/// Memory of a GPU that its driver has exported as a dmabuf, for network cards to reach without a copy.
struct DeviceMemory {
  int dmabuf = -1;           ///< The export's descriptor; the caller's.
  std::uint64_t offset = 0;  ///< Where the memory begins in the export, in bytes.
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
};

/// One thing that poll() tells. Nothing arrives after `down`; buffers without an arrival are garbage.
struct Completion {
  enum class Kind : std::uint8_t {
    arrival,  ///< The peer's write has landed wholly: `word` and `length` are the writer's.
    sent,     ///< A signalled write's source may be reused. It says nothing about delivery. `context` is the
              ///< writer's.
    down,     ///< The connection is lost; `error` says why. Told once.
  };
  Kind kind = Kind::arrival;
  Errc error = Errc::peer_lost;
  std::uint32_t word = 0;
  std::uint64_t length = 0;  ///< Arrival: bytes written, as the writer says: hostile until checked.
  std::uint64_t context = 0;
};

/// One connected pair. Destroying it closes it and releases its memory; nothing arrives or lands in the
/// registered regions afterwards, nor after `down` was told (on shm: unless the peer was stopped in the
/// middle of a write and goes on later).
class Connection {
 public:
  virtual ~Connection() = default;

  struct WriteOptions {
    bool signal = false;  ///< Ask for a `sent` completion with `context`.
    std::uint64_t context = 0;
  };

  /// Writes the pieces one after the other to remote.base + offset and raises an arrival with `word`
  /// and their total length at the peer. Writes of one connection land and arrive in order.
  ///
  /// @param pieces At most 2, from registered regions (any memory when the total is at most
  ///               inline_bytes); left unchanged until `sent`, a reply that implies delivery, or `down`.
  ///               An empty total raises an arrival of length 0.
  /// @retval Errc::queue_full  Nothing was sent: poll, then try again.
  /// @retval Errc::too_large   Beyond remote.bytes or write_bytes_max: nothing was sent.
  /// @retval Errc::peer_lost, Errc::closed
  /// Blocks: never. Allocates: never. Owner thread.
  [[nodiscard]] virtual Status write(std::span<const std::span<const std::byte>> pieces,
                                     const RemoteRegion& remote, std::uint64_t offset, std::uint32_t word,
                                     WriteOptions options) noexcept = 0;

  /// The same without an arrival: the payload of a later write() that announces it.
  [[nodiscard]] virtual Status write_silent(std::span<const std::byte> piece, const RemoteRegion& remote,
                                            std::uint64_t offset, WriteOptions options) noexcept = 0;

  /// Fills `out` from the front, returns how many. Makes progress: a full queue empties only while its
  /// owner polls with room in `out`. Blocks: never. Allocates: never. Owner
  /// thread.
  [[nodiscard]] virtual std::size_t poll(std::span<Completion> out) noexcept = 0;

  /// Prepares to sleep on descriptor(): after true the caller may sleep until it is readable; after
  /// false something has come meanwhile: poll again. Owner thread.
  [[nodiscard]] virtual bool arm() noexcept = 0;
  /// Becomes readable when poll() has something to tell after arm(); also on `down`. Valid for the
  /// connection's life.
  [[nodiscard]] virtual int descriptor() const noexcept = 0;

  /// Sends a last message of at most 64 bytes to the peer's service thread, out of band and without
  /// waiting. Async-signal-safe: a crash handler may call it. The peer finds it in last_words() after
  /// `down`. Any thread.
  virtual void say_last_words(std::span<const std::byte> message) noexcept = 0;
  /// What the peer said last; empty when it said nothing. Valid after `down`.
  [[nodiscard]] virtual std::span<const std::byte> last_words() const noexcept = 0;

  /// Tells the peer and releases the queue; idempotent. The peer sees what was written before, then
  /// `down` with Errc::closed. Waits for writes that are under way: at most 50 ms, on verbs 250 ms after the
  /// last of them that went.
  virtual void close() noexcept = 0;

  [[nodiscard]] virtual std::string_view transport_name() const noexcept = 0;
};

/// A peer that asks to be let in: to be answered by accept() or reject() within limits::accept_max.
struct ConnectRequest {
  std::uint64_t id = 0;
  /// Hostile until checked. On verbs there are always connect_private_bytes: zeros follow what was sent.
  std::vector<std::byte> private_data;
};

/// One backend opened in this process, with at most one listener. Regions that a peer shall write into
/// are registered before connect() and accept().
class Transport {
 public:
  virtual ~Transport() = default;

  [[nodiscard]] virtual std::string_view name() const noexcept = 0;
  [[nodiscard]] virtual const Capabilities& capabilities() const noexcept = 0;

  /// Registers a region for reading and for the peers' writing, under a fresh random key. The region
  /// must outlive the transport or deregister(). Not on the invocation path.
  [[nodiscard]] virtual Result<RemoteRegion> register_region(const memory::Region& region) = 0;
  /// The same for memory of a GPU, which must stay until deregister(). For the peers to write into: a small
  /// write of one's own is copied by the processor, which cannot read it.
  /// @retval Errc::unavailable  capabilities().device_memory is false: payloads go through a region.
  [[nodiscard]] virtual Result<RemoteRegion> register_device_memory(const DeviceMemory& memory);
  /// Ends the peers' access to it.
  virtual void deregister(const RemoteRegion& region) noexcept = 0;

  /// Starts to listen and returns the address that peers connect to ("10.0.0.1:4711", "/run/x/w.sock").
  /// @param address tcp, verbs: numeric host, port 0 or given. shm: path of a socket to be made.
  [[nodiscard]] virtual Result<std::string> listen(const std::string& address) = 0;

  /// Requests that wait for an answer. Half-open, silent and foreign peers are dropped inside within
  /// limits::handshake_max and never keep others out. Service thread.
  [[nodiscard]] virtual std::vector<ConnectRequest> requests() = 0;
  [[nodiscard]] virtual Result<std::unique_ptr<Connection>> accept(
      std::uint64_t request, std::span<const std::byte> private_data) = 0;
  virtual void reject(std::uint64_t request, std::span<const std::byte> private_data) noexcept = 0;

  struct Connected {
    std::unique_ptr<Connection> connection;
    std::vector<std::byte> private_data;  ///< Of the acceptance. Hostile until checked.
  };
  /// Begins to connect; service() drives it, so that many can be under way at once. Service thread.
  /// @return The attempt's number, for take_connected() or give_up().
  [[nodiscard]] virtual Result<std::uint64_t> start_connect(const std::string& address,
                                                            std::span<const std::byte> private_data,
                                                            std::chrono::milliseconds timeout) = 0;
  /// What came of an attempt, told once; nothing while it is under way. At its timeout the next look tells
  /// Errc::timeout. A rejection is the error that the peer's wire::Refusal carries. Service thread.
  [[nodiscard]] virtual std::optional<Result<Connected>> take_connected(std::uint64_t attempt) = 0;
  /// Ends an attempt that was not taken. Service thread.
  virtual void give_up(std::uint64_t attempt) noexcept = 0;
  /// Connects and waits for the peer's word, at most `timeout`. Service thread.
  [[nodiscard]] Result<Connected> connect(const std::string& address, std::span<const std::byte> private_data,
                                          std::chrono::milliseconds timeout);

  /// Drives set-up, heartbeats and peer death for at most `wait_max`, sooner when something happened.
  /// To be called at least every heartbeat_interval while connections live: a side that does not is
  /// taken for dead by its peers after peer_silent_max. Service thread.
  virtual void service(std::chrono::milliseconds wait_max) = 0;
  /// Readable when service() has something to do before its next heartbeat.
  [[nodiscard]] virtual int service_descriptor() const noexcept = 0;
};

/// How patient a transport is. Both ends should agree; tests shorten it.
struct Timing {
  std::chrono::milliseconds heartbeat_interval = limits::heartbeat_interval;
  std::chrono::milliseconds peer_silent_max = limits::peer_silent_max;
  std::chrono::milliseconds handshake_max = limits::handshake_max;
};

/// Opens a backend by name: "tcp", "shm", "verbs", or one within the fault decorator:
/// "fault:SEED:RULES:tcp" (see fault/). The first "tcp" in a process loads libfabric (about 0.3 s on Debian
/// 12) and leaves the process's signal handlers as they were.
/// @retval Errc::not_found with the names that exist.
/// @retval Errc::invalid_argument with what is wrong in a fault decorator's name.
/// @retval Errc::unavailable with what to do: the package to install, the driver to load, the limit to raise.
[[nodiscard]] Result<std::unique_ptr<Transport>> open(std::string_view name, const Timing& timing = {});

/// Loads what backends need without opening an endpoint, a device or a thread: what the template
/// process pays once before it forks workers.
[[nodiscard]] Status preload();

/// The backends that this machine can use: "verbs" where there is a device with an active port.
[[nodiscard]] std::vector<std::string> names();

}  // namespace sublet::transport
