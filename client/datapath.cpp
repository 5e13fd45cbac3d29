// The way of a call: submit, write, poll, reply, final status. While work arrives in good order nothing
// here allocates, locks, logs or enters the kernel (but for what a transport does to move bytes).
#include <algorithm>
#include <array>
#include <cstring>

#include "client/invocations.hpp"
#include "runtime/base/assert.hpp"

namespace sublet::client {

using transport::Completion;

// --- One worker -----------------------------------------------------------------------------------

wire::RequestHeader& WorkerLink::header(std::uint32_t slot) noexcept {
  return *reinterpret_cast<wire::RequestHeader*>(headers_ + slot * RegionPlan::header_stride);
}

std::uint32_t WorkerLink::word(wire::RequestKind kind, std::uint32_t slot,
                               std::uint16_t generation) const noexcept {
  return wire::Word{static_cast<std::uint8_t>(kind), static_cast<std::uint16_t>(slot), generation}.pack();
}

/// A connection that refused a write for anything but room is on its way down.
Status WorkerLink::note(Status status) noexcept {
  if (!status.ok() && status.error().code() != Errc::queue_full) broken_ = true;
  return status;
}

Result<std::uint32_t> WorkerLink::send(const Call& call, std::uint32_t call_index) noexcept {
  if (!usable()) return Errc::closed;
  if (free_slots_.empty()) return Errc::queue_full;
  if (call.spec.input.size() > input_bytes_max()) return Errc::too_large;
  const std::uint32_t index = free_slots_.back();
  Slot& slot = slots_[index];
  const Status written = write_call(call, index);
  if (!written.ok()) {
    if (slot.large_offset) large_.give_back(*slot.large_offset);
    slot.large_offset.reset();
    slot.header_sent = false;
    return written.error().code();
  }
  free_slots_.pop_back();
  ++busy_;
  ++slot.generation;
  slot.busy = true;
  slot.sequence_before = slot.sequence;
  slot.sequence = ++sequence_;
  slot.call = call_index;
  slot.input_block = call.spec.input_block;
  slot.output_block = call.spec.output_block;
  return index;
}

Status WorkerLink::write_call(const Call& call, std::uint32_t index) noexcept {
  Slot& slot = slots_[index];
  const CallSpec& spec = call.spec;
  wire::RequestHeader wanted{.entry = spec.entry,
                             .output_offset = spec.output_offset,
                             .output_capacity = std::min(spec.output_capacity, welcome_.output_bytes_max),
                             .deadline_us = spec.deadline_us};
  const bool large = spec.input.size() > wire::slot_payload_bytes(layout_.slot_bytes);
  if (large) {
    slot.large_offset = large_.take(spec.input.size());
    if (!slot.large_offset) return Errc::queue_full;
    if (Status written = write_large(call, *slot.large_offset); !written.ok()) return written;
    wanted.flags = wire::flag_large_input;
    wanted.input_offset = *slot.large_offset;
    wanted.input_bytes = spec.input.size();
  }
  slot.output_capacity = wanted.output_capacity;  // Not from the region: a worker may write there.
  wire::RequestHeader& kept = header(index);
  const auto generation = static_cast<std::uint16_t>(slot.generation + 1);
  const std::size_t begin = layout_.slot_offset(index);
  if (slot.header_sent && !large && std::memcmp(&kept, &wanted, sizeof(kept)) == 0) {
    return note(connection_->write(std::span(&spec.input, 1), remote_, begin + wire::payload_offset,
                                   word(wire::RequestKind::invoke_again, index, generation), {}));
  }
  kept = wanted;
  slot.header_sent = false;
  const std::array<std::span<const std::byte>, 2> pieces{wire::bytes_of(kept), spec.input};
  Status sent = note(connection_->write(std::span(pieces).first(large || spec.input.empty() ? 1 : 2), remote_,
                                        begin + wire::header_offset,
                                        word(wire::RequestKind::invoke, index, generation), {}));
  // A write that was refused, by a full queue for one, left no header in the worker's slot.
  slot.header_sent = sent.ok() && !large;
  return sent;
}

Status WorkerLink::write_large(const Call& call, std::size_t offset) noexcept {
  std::span<const std::byte> rest = call.spec.input;
  while (!rest.empty()) {
    const std::span<const std::byte> piece = rest.first(std::min(rest.size(), capabilities_.write_bytes_max));
    if (Status written = note(connection_->write_silent(piece, remote_, offset, {})); !written.ok()) {
      return written;
    }
    offset += piece.size();
    rest = rest.subspan(piece.size());
  }
  return {};
}

Status WorkerLink::send_cancel(std::uint32_t slot) noexcept {
  if (!connected() || broken_) return Errc::closed;
  return note(
      connection_->write({}, remote_, 0, word(wire::RequestKind::cancel, slot, slots_[slot].generation), {}));
}

void WorkerLink::send_renewal() noexcept {
  if (!renewal_ || renewal_in_transit_ || !connected() || broken_) return;
  std::byte* const source = control_ + RegionPlan::renew_offset;
  std::memcpy(source, &*renewal_, sizeof(*renewal_));
  const std::span<const std::byte> piece(source, sizeof(*renewal_));
  // The next token must not overwrite this one while it is being read.
  const bool signal = capabilities_.inline_bytes < piece.size();
  const Status sent = note(connection_->write(std::span(&piece, 1), remote_, wire::renew_offset,
                                              word(wire::RequestKind::renew, 0, 0),
                                              {.signal = signal, .context = renewal_context}));
  if (!sent.ok()) return;
  renewal_.reset();
  renewal_in_transit_ = signal;
}

WorkerLink::Reply WorkerLink::classify(const Completion& completion) const noexcept {
  const wire::Word word = wire::Word::unpack(completion.word);
  const auto kind = static_cast<wire::ReplyKind>(word.kind);
  if (kind == wire::ReplyKind::draining) return {.kind = Reply::Kind::draining};
  if (kind < wire::ReplyKind::ok || kind > wire::ReplyKind::refused || word.slot >= slots()) {
    return {.kind = Reply::Kind::violation};
  }
  const Slot& slot = slots_[word.slot];
  if (!slot.busy || slot.generation != word.generation) return {.kind = Reply::Kind::stale};
  const std::uint64_t length_max =
      kind == wire::ReplyKind::ok ? slot.output_capacity : std::uint64_t{limits::message_bytes};
  if (completion.length > length_max) return {.kind = Reply::Kind::violation};
  return {Reply::Kind::answer, kind, word.slot};
}

void WorkerLink::free_slot(std::uint32_t index) noexcept {
  Slot& slot = slots_[index];
  if (slot.large_offset) large_.give_back(*slot.large_offset);
  slot.large_offset.reset();
  slot.busy = false;
  slot.call = none;
  --busy_;
  free_slots_.push_back(index);
}

// --- All workers of a lease -----------------------------------------------------------------------

Status Invocations::check(const CallSpec& spec) const noexcept {
  if (ended()) return end_reason_;
  if (entries_ != 0 && spec.entry >= entries_) return Errc::invalid_argument;
  if (spec.input_block == spec.output_block) return Errc::invalid_argument;
  if (!blocks_.readable(spec.input_block) || !blocks_.writable(spec.output_block)) return Errc::busy;
  return {};
}

Result<CallHandle> Invocations::submit(const CallSpec& spec, TimePoint now) noexcept {
  if (const Status checked = check(spec); !checked.ok()) return checked.error().code();
  if (calls_.earliest_deadline() <= now) expire(now);
  Call* const call = calls_.begin(spec);
  if (call == nullptr) return Errc::queue_full;
  if (const Status placed = place(*call); !placed.ok()) {
    const Errc error = placed.error().code();
    const bool no_worker = error == Errc::queue_full && !any_usable();
    if (!no_worker) {
      calls_.finish(*call, false, error, 0);
      calls_.forget(*call);
      return error;
    }
    calls_.wait_for_worker(*call);
  }
  blocks_.hold(spec.input_block, spec.output_block);
  ++counters_.submitted;
  return calls_.handle_of(*call);
}

WorkerLink* Invocations::least_busy() noexcept {
  WorkerLink* best = nullptr;
  for (WorkerLink& link : links_) {
    if (link.has_room() && (best == nullptr || link.busy() < best->busy())) best = &link;
  }
  return best;
}

bool Invocations::any_usable() const noexcept {
  return std::any_of(links_.begin(), links_.end(), [](const WorkerLink& link) { return link.usable(); });
}

/// Sends the call, or says queue_full. A worker that turns out to be gone is skipped.
Status Invocations::place(Call& call) noexcept {
  while (WorkerLink* const link = least_busy()) {
    const Result<std::uint32_t> slot = link->send(call, calls_.index_of(call));
    if (slot.ok()) {
      calls_.mark_sent(call, static_cast<std::uint32_t>(link - links_.data()), *slot);
      blocks_.hold(call.spec.input_block, call.spec.output_block);
      return {};
    }
    if (!link->broken()) return slot.error().code();
  }
  return Errc::queue_full;
}

void Invocations::place_waiting(TimePoint now) noexcept {
  while (Call* const call = calls_.first_waiting()) {
    if (call->spec.deadline <= now) return;  // expire() is next.
    const auto left = std::chrono::duration_cast<std::chrono::microseconds>(call->spec.deadline - now);
    call->spec.deadline_us = std::max<std::uint64_t>(1, static_cast<std::uint64_t>(left.count()));
    const Status placed = place(*call);
    if (placed.ok()) continue;
    if (placed.error().code() == Errc::queue_full) return;
    finish(*call, false, placed.error().code());
  }
}

void Invocations::progress(TimePoint now, bool all) noexcept {
  for (WorkerLink& link : links_) {
    if (!link.connected()) continue;
    if (all || link.busy() > 0 || !link.usable()) poll(link);
    if (all) link.send_renewal();
  }
  if (calls_.first_waiting() != nullptr) place_waiting(now);
  if (calls_.earliest_deadline() <= now) expire(now);
  if (cancels_unsent_ > 0) send_cancels();
}

void Invocations::poll(WorkerLink& link) noexcept {
  const std::size_t count = link.connection().poll(batch_);
  for (const Completion& completion : std::span(batch_).first(count)) {
    switch (completion.kind) {
      case Completion::Kind::arrival:
        take_reply(link, completion);
        break;
      case Completion::Kind::sent:
        link.renewal_sent();
        break;
      case Completion::Kind::down:
        lose(link, completion.error);
        break;
    }
    if (!link.connected()) return;
  }
}

void Invocations::take_reply(WorkerLink& link, const Completion& completion) noexcept {
  const WorkerLink::Reply reply = link.classify(completion);
  switch (reply.kind) {
    case WorkerLink::Reply::Kind::answer:
      return settle(link, reply, completion.length);
    case WorkerLink::Reply::Kind::draining:
      return link.set_draining();
    case WorkerLink::Reply::Kind::stale:
      return;
    case WorkerLink::Reply::Kind::violation:
      link.connection().close();
      return lose(link, Errc::protocol_error);
  }
}

void Invocations::settle(WorkerLink& link, const WorkerLink::Reply& reply, std::uint64_t length) noexcept {
  const std::uint32_t index = link.slot(reply.slot).call;
  const std::span<const std::byte> text = link.message_of(reply.slot, length);
  release_slot(link, reply.slot);
  if (reply.answer == wire::ReplyKind::not_started) link.set_draining();  // Only a worker that ends says so.
  if (index == none) return;
  Call& call = calls_.at(index);
  switch (reply.answer) {
    case wire::ReplyKind::ok:
      return finish(call, true, Errc{}, length);
    case wire::ReplyKind::not_started:
      return run_again(call);
    case wire::ReplyKind::deadline_exceeded:
      return finish(call, false, Errc::deadline_exceeded);
    case wire::ReplyKind::cancelled:
      return finish(call, false, Errc::cancelled);
    case wire::ReplyKind::refused:
      keep_message(call, text);
      return finish(call, false, Errc::invalid_argument);
    case wire::ReplyKind::function_failed:
    case wire::ReplyKind::draining:
      keep_message(call, text);
      return finish(call, false, Errc::function_failed);
  }
}

void Invocations::release_slot(WorkerLink& link, std::uint32_t slot) noexcept {
  blocks_.let_go(link.slot(slot).input_block, link.slot(slot).output_block);
  link.free_slot(slot);
}

void Invocations::finish(Call& call, bool ok, Errc error, std::uint64_t output_bytes) noexcept {
  if (call.cancel_unsent) {
    call.cancel_unsent = false;
    --cancels_unsent_;
  }
  ++(ok ? counters_.succeeded : counters_.failed);
  blocks_.let_go(call.spec.input_block, call.spec.output_block);
  calls_.finish(call, ok, error, output_bytes);
}

}  // namespace sublet::client
