#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "runtime/base/clock.hpp"
#include "runtime/transport/transport.hpp"
#include "runtime/transport/verbs/endpoint.hpp"

namespace sublet::transport::verbs {

/// The data path over one reliable queue pair: RDMA writes with immediate data. Owner thread.
class VerbsConnection final : public Connection {
 public:
  /// @param accepted The peer's greeting was its first arrival here; otherwise ours was there.
  VerbsConnection(std::shared_ptr<Endpoint> endpoint, bool accepted);
  ~VerbsConnection() override;

  Status write(std::span<const std::span<const std::byte>> pieces, const RemoteRegion& remote,
               std::uint64_t offset, std::uint32_t word, WriteOptions options) noexcept override;
  Status write_silent(std::span<const std::byte> piece, const RemoteRegion& remote, std::uint64_t offset,
                      WriteOptions options) noexcept override;
  std::size_t poll(std::span<Completion> out) noexcept override;
  bool arm() noexcept override;
  int descriptor() const noexcept override { return endpoint_->descriptor(); }
  void say_last_words(std::span<const std::byte> message) noexcept override {
    endpoint_->say_last_words(message);
  }
  std::span<const std::byte> last_words() const noexcept override;
  void close() noexcept override;
  std::string_view transport_name() const noexcept override { return "verbs"; }

 private:
  static constexpr std::uint32_t signalled_max = 1024;
  struct Signalled {
    std::uint64_t number = 0;
    std::uint64_t context = 0;
  };
  /// Own memory that the device may read from.
  struct Source {
    const std::byte* begin = nullptr;
    std::uint64_t bytes = 0;
    std::uint32_t key = 0;
  };
  [[nodiscard]] Status post(std::span<const std::span<const std::byte>> pieces, const RemoteRegion& remote,
                            std::uint64_t offset, const WriteOptions& options) noexcept;
  [[nodiscard]] bool has_room(const WriteOptions& options, bool arrival) noexcept;
  [[nodiscard]] bool gather(std::span<const std::span<const std::byte>> pieces,
                            std::uint64_t& total) noexcept;
  [[nodiscard]] bool find_sources() noexcept;
  [[nodiscard]] std::size_t poll_arrivals(std::span<Completion> out) noexcept;
  [[nodiscard]] std::size_t take(std::span<const ibv_wc> completions, std::span<Completion> out) noexcept;
  [[nodiscard]] std::size_t poll_sent(std::span<Completion> out) noexcept;
  [[nodiscard]] std::size_t poll_end(std::span<Completion> out) noexcept;
  /// Posts receives again and tells the peer. Off the way of an arrival.
  void replenish() noexcept;
  void flush() noexcept;

  std::shared_ptr<Endpoint> endpoint_;
  ibv_qp* queue_pair_ = nullptr;
  ibv_cq* arrivals_queue_ = nullptr;
  ibv_send_wr request_{};  ///< Reused: only what differs is written again.
  std::array<ibv_sge, 2> pieces_{};
  std::uint32_t inline_bytes_ = 0;
  std::uint32_t window_ = 0;
  std::uint64_t write_bytes_max_ = 0;
  std::uint64_t posted_ = 0;
  std::uint64_t asked_ = 0;          ///< Writes up to here were posted with a completion behind them.
  std::uint64_t unasked_bytes_ = 0;  ///< Of the writes since.
  std::uint64_t granted_ = 0;        ///< Arrivals that the peer has receives for, in all.
  std::uint64_t announced_ = 0;
  std::uint32_t taken_ = 0;  ///< Receives used and not posted again.
  std::uint32_t receives_ = 0;
  std::uint64_t receives_posted_ = 0;
  std::uint64_t receives_told_ = 0;
  std::uint64_t arrivals_ = 0;
  std::uint64_t signalled_head_ = 0;
  std::uint64_t signalled_tail_ = 0;
  bool has_peeked_ = false;
  bool data_ended_ = false;
  bool ending_ = false;
  bool end_told_ = false;
  bool closed_ = false;
  TimePoint end_wait_until_{};
  std::size_t sources_count_ = 0;
  std::array<Source, regions_max> sources_;
  ibv_wc peeked_{};                                 ///< Found by arm().
  std::array<Signalled, signalled_max> signalled_;  ///< A ring: what is not used stays cold.
};

}  // namespace sublet::transport::verbs
