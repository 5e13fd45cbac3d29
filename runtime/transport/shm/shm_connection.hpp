#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/memory/region.hpp"
#include "runtime/transport/gate/gate.hpp"
#include "runtime/transport/shm/ring.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::transport::shm {

/// A region of the peer, mapped here.
struct PeerRegion {
  std::uint64_t key = 0;
  memory::Region memory;
};

/// The data path between two processes of one machine: the writer copies into the mapped region of its
/// peer and pushes an entry into the peer's ring.
class ShmConnection final : public Connection {
 public:
  /// @param control  A region that holds a ControlBlock.
  /// @param doorbell The peer's event descriptor; ours is the link's wake.
  ShmConnection(gate::LinkPtr link, memory::Region control, bool acceptor, FileDescriptor doorbell,
                std::vector<PeerRegion> regions);
  ~ShmConnection() override;

  Status write(std::span<const std::span<const std::byte>> pieces, const RemoteRegion& remote,
               std::uint64_t offset, std::uint32_t word, WriteOptions options) noexcept override;
  Status write_silent(std::span<const std::byte> piece, const RemoteRegion& remote, std::uint64_t offset,
                      WriteOptions options) noexcept override;
  std::size_t poll(std::span<Completion> out) noexcept override;
  bool arm() noexcept override;
  int descriptor() const noexcept override { return link_->wake(); }
  void say_last_words(std::span<const std::byte> message) noexcept override {
    link_->say_last_words(message);
  }
  std::span<const std::byte> last_words() const noexcept override { return link_->last_words(); }
  void close() noexcept override;
  std::string_view transport_name() const noexcept override { return "shm"; }

 private:
  static constexpr std::uint32_t sent_max = 4096;

  /// Copies the pieces; refuses before it touches anything.
  [[nodiscard]] Status put(std::span<const std::span<const std::byte>> pieces, std::size_t total,
                           const RemoteRegion& remote, std::uint64_t offset, bool signal) noexcept;
  [[nodiscard]] std::byte* find(std::uint64_t key, std::uint64_t offset, std::size_t bytes,
                                bool& known) noexcept;
  [[nodiscard]] std::size_t poll_ring(std::span<Completion> out) noexcept;
  [[nodiscard]] std::size_t poll_end(std::span<Completion> out) noexcept;
  /// Ends the peer's writing into our regions.
  void shut() noexcept;
  void note_sent(const WriteOptions& options) noexcept;

  gate::LinkPtr link_;
  memory::Region control_;
  RingWriter writer_;
  RingReader reader_;
  FileDescriptor doorbell_;
  std::vector<PeerRegion> regions_;
  std::array<std::uint64_t, sent_max> sent_{};  ///< Contexts of signalled writes that poll() has to tell.
  std::uint32_t sent_head_ = 0;
  std::uint32_t sent_tail_ = 0;
  bool armed_ = false;
  bool closed_ = false;
  bool end_told_ = false;
};

}  // namespace sublet::transport::shm
