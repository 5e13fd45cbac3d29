#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/clock.hpp"
#include "runtime/transport/fabric/endpoint.hpp"
#include "runtime/transport/fabric/queue_watch.hpp"
#include "runtime/transport/gate/gate.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::transport::fabric {

/// The data path over one libfabric endpoint: remote writes whose 8-byte data word carries the length
/// and our word, since this provider tells no length at the target.
class FabricConnection final : public Connection {
 public:
  [[nodiscard]] static Result<std::unique_ptr<FabricConnection>> make(
      gate::LinkPtr link, std::shared_ptr<gate::Gate::Mailbox> mailbox, Endpoint endpoint,
      const Capabilities& capabilities);
  ~FabricConnection() override;

  /// Unconnected endpoints: lets the provider connect, which it would do at the first write.
  /// @retval Errc::queue_full  Not yet: again when descriptor() is readable.
  [[nodiscard]] Status make_ready() noexcept;

  Status write(std::span<const std::span<const std::byte>> pieces, const RemoteRegion& remote,
               std::uint64_t offset, std::uint32_t word, WriteOptions options) noexcept override;
  Status write_silent(std::span<const std::byte> piece, const RemoteRegion& remote, std::uint64_t offset,
                      WriteOptions options) noexcept override;
  std::size_t poll(std::span<Completion> out) noexcept override;
  bool arm() noexcept override;
  int descriptor() const noexcept override { return watch_.descriptor(); }
  void say_last_words(std::span<const std::byte> message) noexcept override {
    link_->say_last_words(message);
  }
  std::span<const std::byte> last_words() const noexcept override { return link_->last_words(); }
  void close() noexcept override;
  std::string_view transport_name() const noexcept override { return name_; }

 private:
  /// Writes in flight, numbered from 1. They complete in order, so one completion accounts for all
  /// before it and most writes ask for none: each costs the provider two system calls.
  static constexpr std::uint32_t window = 4096;
  static constexpr std::uint32_t signalled_max = 1024;
  static constexpr std::uint32_t unasked_max = 32;
  static constexpr std::uint64_t unasked_bytes_max = 64 * 1024;
  struct Signalled {
    std::uint64_t number = 0;
    std::uint64_t context = 0;
  };
  FabricConnection(gate::LinkPtr link, std::shared_ptr<gate::Gate::Mailbox> mailbox, Endpoint endpoint,
                   const Capabilities& capabilities);
  [[nodiscard]] Status post(std::span<const std::span<const std::byte>> pieces, const RemoteRegion& remote,
                            std::uint64_t offset, std::uint64_t flags, std::uint32_t word,
                            const WriteOptions& options) noexcept;
  [[nodiscard]] std::size_t poll_queue(std::span<Completion> out) noexcept;
  [[nodiscard]] std::size_t poll_end(std::span<Completion> out) noexcept;
  void on_queue_error() noexcept;
  void flush() noexcept;
  /// Looks whether the provider has told the end of the data path.
  void look_at_events() noexcept;

  gate::LinkPtr link_;
  std::shared_ptr<gate::Gate::Mailbox> mailbox_;
  /// Writes' sources must be described to some providers.
  struct Source {
    const std::byte* data = nullptr;
    std::size_t bytes = 0;
    void* descriptor = nullptr;
  };
  [[nodiscard]] void* describe(const std::byte* data) const noexcept;

  Endpoint endpoint_;
  std::string name_;
  std::vector<Source> sources_;  ///< Empty where nothing is to be described.
  std::uint64_t write_bytes_max_ = 0;
  std::size_t inline_bytes_ = 0;
  QueueWatch watch_;  ///< The completion queue and the link's wake in one.
  std::array<Signalled, signalled_max>
      signalled_;  ///< A ring: what a steady stream does not touch stays cold.
  std::uint64_t signalled_head_ = 0;
  std::uint64_t signalled_tail_ = 0;
  std::uint64_t posted_ = 0;
  std::uint64_t asked_ = 0;      ///< Writes up to here were posted with a completion behind them.
  std::uint64_t completed_ = 0;  ///< Writes known to have left.
  std::uint32_t idle_polls_ = 0;
  std::uint64_t arrivals_ = 0;
  TimePoint end_wait_until_{};
  bool ending_ = false;
  bool data_ended_ = false;
  bool end_told_ = false;
  bool closed_ = false;
};

}  // namespace sublet::transport::fabric
