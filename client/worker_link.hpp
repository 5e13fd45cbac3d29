#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/in_flight.hpp"
#include "client/range_allocator.hpp"
#include "client/region_plan.hpp"
#include "runtime/base/result.hpp"
#include "runtime/transport/transport.hpp"
#include "runtime/wire/handshake.hpp"
#include "runtime/wire/request.hpp"
#include "runtime/wire/word.hpp"

namespace sublet::client {

/// Which worker a link leads to, and how.
struct WorkerIdentity {
  std::uint64_t node = 0;
  std::string node_name;
  std::uint32_t worker = 0;
  std::string transport;
  std::string address;
  std::string why;         ///< That transport.
  bool fell_back = false;  ///< To it.
};

/// One use of a slot: from the write of a call until the worker has answered it or the connection is
/// down. Until then the worker may touch the slot, the input and the output, whatever became of the call.
struct Slot {
  std::uint64_t sequence = 0;         ///< Order of the sends on this connection.
  std::uint64_t sequence_before = 0;  ///< Of the slot's use before this one.
  std::uint32_t call = none;          ///< `none` when the call ended before the worker answered.
  std::uint32_t input_block = 0;
  std::uint32_t output_block = 0;
  std::uint64_t output_capacity = 0;
  std::optional<std::size_t> large_offset;
  std::uint16_t generation = 0;
  bool busy = false;
  bool header_sent = false;  ///< The worker's slot holds the header that we hold.
};

/// A connection that was just made, with what both sides said.
struct Established {
  std::unique_ptr<transport::Connection> connection;
  transport::Capabilities capabilities;
  wire::Welcome welcome;
  wire::Layout layout;
  WorkerIdentity identity;
};

/// One place of a lease for a worker: a connection, the layout of the worker's input region, and which
/// slots are in use. It decides what goes where and what a reply belongs to; what the calls make of it
/// is Invocations'. Thread safety: the holder of the lease's data path.
class WorkerLink {
 public:
  WorkerLink(std::uint32_t index, const RegionPlan& plan, std::byte* region);

  // Set-up: worker_link.cpp.

  /// Takes a connection and sends attach, the first word on it.
  [[nodiscard]] Status open(Established established, const wire::Attach& attach);
  /// Gives the connection away to be destroyed; every slot is free afterwards. Identity stays.
  [[nodiscard]] std::unique_ptr<transport::Connection> close() noexcept;
  /// Takes a token to be sent by send_renewal().
  void renew(const wire::SignedToken& token) noexcept { renewal_ = token; }

  // Data path: datapath.cpp.

  /// Writes the call into a free slot. queue_full, too_large (beyond the worker's large area), or the
  /// connection's end.
  [[nodiscard]] Result<std::uint32_t> send(const Call& call, std::uint32_t call_index) noexcept;
  [[nodiscard]] Status send_cancel(std::uint32_t slot) noexcept;
  void send_renewal() noexcept;

  /// What a word from the worker means.
  struct Reply {
    enum class Kind : std::uint8_t { answer, draining, stale, violation };
    Kind kind = Kind::stale;
    wire::ReplyKind answer = wire::ReplyKind::ok;
    std::uint32_t slot = 0;
  };
  /// Hostile input.
  [[nodiscard]] Reply classify(const transport::Completion& completion) const noexcept;
  void free_slot(std::uint32_t slot) noexcept;
  void renewal_sent() noexcept { renewal_in_transit_ = false; }

  [[nodiscard]] bool connected() const noexcept { return connection_ != nullptr; }
  [[nodiscard]] bool usable() const noexcept { return connected() && !draining_ && !broken_; }
  [[nodiscard]] bool has_room() const noexcept { return usable() && !free_slots_.empty(); }
  [[nodiscard]] bool broken() const noexcept { return broken_; }
  [[nodiscard]] std::uint32_t busy() const noexcept { return busy_; }
  void set_draining() noexcept { draining_ = true; }

  [[nodiscard]] transport::Connection& connection() noexcept { return *connection_; }
  [[nodiscard]] const Slot& slot(std::uint32_t index) const noexcept { return slots_[index]; }
  [[nodiscard]] Slot& slot(std::uint32_t index) noexcept { return slots_[index]; }
  [[nodiscard]] std::uint32_t slots() const noexcept { return static_cast<std::uint32_t>(slots_.size()); }
  [[nodiscard]] std::span<const std::byte> message_of(std::uint32_t slot, std::size_t bytes) const noexcept {
    return {messages_ + slot * limits::message_bytes, bytes};
  }
  [[nodiscard]] const WorkerIdentity& identity() const noexcept { return identity_; }
  [[nodiscard]] std::uint32_t entries() const noexcept { return welcome_.entries; }
  [[nodiscard]] std::uint64_t output_bytes_max() const noexcept { return welcome_.output_bytes_max; }
  /// Largest input that this worker could take when nothing else is in flight.
  [[nodiscard]] std::size_t input_bytes_max() const noexcept;

 private:
  static constexpr std::uint64_t renewal_context = 1;

  [[nodiscard]] Status write_call(const Call& call, std::uint32_t index) noexcept;
  [[nodiscard]] Status write_large(const Call& call, std::size_t offset) noexcept;
  [[nodiscard]] Status note(Status status) noexcept;
  [[nodiscard]] wire::RequestHeader& header(std::uint32_t slot) noexcept;
  [[nodiscard]] std::uint32_t word(wire::RequestKind kind, std::uint32_t slot,
                                   std::uint16_t generation) const noexcept;

  // Set at construction.
  std::byte* control_;
  std::byte* headers_;
  const std::byte* messages_;
  // Of the connection.
  std::unique_ptr<transport::Connection> connection_;
  transport::RemoteRegion remote_;
  wire::Layout layout_;
  wire::Welcome welcome_;
  WorkerIdentity identity_;
  transport::Capabilities capabilities_;
  RangeAllocator large_;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_slots_;
  std::uint64_t sequence_ = 0;
  std::uint32_t busy_ = 0;
  bool draining_ = false;
  bool broken_ = false;  // A write failed: `down` is on its way.
  std::optional<wire::SignedToken> renewal_;
  bool renewal_in_transit_ = false;
};

}  // namespace sublet::client
