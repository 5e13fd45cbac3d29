#include "client/worker_link.hpp"

#include <algorithm>
#include <cstring>

#include "runtime/base/assert.hpp"

namespace sublet::client {

WorkerLink::WorkerLink(std::uint32_t index, const RegionPlan& plan, std::byte* region)
    : control_(region + plan.control_offset(index)),
      headers_(region + plan.headers_offset(index)),
      messages_(region + plan.messages_offset(index)),
      slots_(plan.slots) {
  free_slots_.reserve(plan.slots);
}

Status WorkerLink::open(Established established, const wire::Attach& attach) {
  SUBLET_ASSERT(connection_ == nullptr && busy_ == 0);
  connection_ = std::move(established.connection);
  capabilities_ = established.capabilities;
  welcome_ = established.welcome;
  layout_ = established.layout;
  identity_ = std::move(established.identity);
  remote_ = {welcome_.region_base, welcome_.region_key, welcome_.region_bytes};
  large_.reset(layout_.large_offset, layout_.large_bytes, slots_.size() + 1);
  std::fill(slots_.begin(), slots_.end(), Slot{});
  free_slots_.clear();
  for (std::uint32_t slot = slots(); slot-- > 0;) free_slots_.push_back(slot);
  sequence_ = 0;
  draining_ = false;
  broken_ = false;
  renewal_.reset();
  renewal_in_transit_ = false;

  std::byte* const source = control_ + RegionPlan::attach_offset;
  std::memcpy(source, &attach, sizeof(attach));
  const std::span<const std::byte> piece(source, sizeof(attach));
  return note(connection_->write(std::span(&piece, 1), remote_, wire::attach_offset,
                                 word(wire::RequestKind::attach, 0, 0), {}));
}

std::unique_ptr<transport::Connection> WorkerLink::close() noexcept {
  SUBLET_ASSERT(busy_ == 0);
  free_slots_.clear();
  return std::move(connection_);
}

std::size_t WorkerLink::input_bytes_max() const noexcept {
  return std::max(wire::slot_payload_bytes(layout_.slot_bytes), large_.size_bytes());
}

}  // namespace sublet::client
