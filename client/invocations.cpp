// Set-up, loss and end: nothing here runs while work arrives in good order. datapath.cpp is the rest.
#include "client/invocations.hpp"

#include <algorithm>
#include <cstring>

#include "runtime/base/assert.hpp"

namespace sublet::client {

Invocations::Invocations(std::byte* region, std::size_t region_bytes, const RegionPlan& plan,
                         std::uint32_t hot_us)
    : plan_(plan),
      region_bytes_(region_bytes),
      hot_us_(hot_us),
      blocks_(plan.arena_offset(), region_bytes - plan.arena_offset()),
      calls_(plan.links * plan.slots) {
  SUBLET_ASSERT(region_bytes > plan.arena_offset());
  links_.reserve(plan.links);
  for (std::uint32_t link = 0; link < plan.links; ++link) links_.emplace_back(link, plan, region);
  lost_.reserve(plan.links);
}

Status Invocations::connect(std::uint32_t link, Established established,
                            const transport::RemoteRegion& region) {
  if (ended()) return end_reason_;
  const wire::Attach attach{.region_base = region.base,
                            .region_key = region.key,
                            .region_bytes = region_bytes_,
                            .messages_offset = plan_.messages_offset(link),
                            .hot_us = hot_us_};
  entries_ = established.welcome.entries;
  Status opened = links_[link].open(std::move(established), attach);
  if (!opened.ok()) lose(links_[link], opened.error().code());
  return opened;
}

void Invocations::end(Errc reason) noexcept {
  if (ended()) return;
  end_reason_ = reason;
  calls_.for_each_unfinished([&](Call& call) {
    if (call.state == Call::State::sent) links_[call.link].slot(call.slot).call = none;
    finish(call, false, reason);
  });
  for (WorkerLink& link : links_) {
    if (!link.connected()) continue;
    link.connection().close();
    lose(link, Errc::closed);
  }
}

std::vector<LostWorker> Invocations::take_lost() {
  std::vector<LostWorker> taken;
  taken.reserve(lost_.capacity());
  taken.swap(lost_);
  return taken;
}

void Invocations::renew(std::uint64_t node, std::uint32_t worker, const wire::SignedToken& token) noexcept {
  for (WorkerLink& link : links_) {
    const bool same = link.identity().node == node && link.identity().worker == worker;
    if (!link.connected() || !same) continue;
    link.renew(token);
    link.send_renewal();
  }
}

/// The place in the order of sends that the worker's last words name; nothing when they name none of ours.
std::optional<std::uint64_t> Invocations::named_sequence(const WorkerLink& link,
                                                         const wire::LastWords& words) noexcept {
  if (words.magic != wire::LastWords::magic_value) return std::nullopt;
  if (words.signal == 0 && words.slot == wire::LastWords::no_slot) return 0;
  if (words.slot >= link.slots()) return std::nullopt;
  const Slot& named = link.slot(words.slot);
  const bool now = named.sequence != 0 && named.generation == words.generation;
  if (now && (words.signal == 0 || named.busy)) return named.sequence;
  // The slot was free as soon as the answer came: its next call may be on its way already.
  const bool before = named.sequence_before != 0 && named.busy &&
                      named.generation == static_cast<std::uint16_t>(words.generation + 1);
  if (before && words.signal == 0) return named.sequence_before;
  return std::nullopt;
}

void Invocations::lose(WorkerLink& link, Errc error) noexcept {
  const auto words = wire::read_as<wire::LastWords>(link.connection().last_words());
  const std::optional<std::uint64_t> sequence = words ? named_sequence(link, *words) : std::nullopt;
  const wire::LastWords* last = sequence ? &*words : nullptr;
  for (std::uint32_t slot = 0; slot < link.slots(); ++slot) {
    if (link.slot(slot).busy) settle_lost(link, slot, last, sequence.value_or(0));
  }
  const auto index = static_cast<std::uint32_t>(&link - links_.data());
  lost_.push_back({index, error, link.close()});
}

void Invocations::settle_lost(WorkerLink& link, std::uint32_t slot, const wire::LastWords* last,
                              std::uint64_t last_sequence) noexcept {
  const std::uint32_t index = link.slot(slot).call;
  const std::uint64_t sequence = link.slot(slot).sequence;
  release_slot(link, slot);
  if (index == none) return;
  Call& call = calls_.at(index);
  const bool crashed_it = last != nullptr && sequence == last_sequence && last->signal != 0;
  const bool not_started = last != nullptr && sequence > last_sequence;
  if (crashed_it) {
    call.signal = last->signal;
    finish(call, false, Errc::function_failed);
  } else if (not_started || call.spec.idempotent) {
    run_again(call);
  } else {
    finish(call, false, Errc::worker_lost);
  }
}

void Invocations::run_again(Call& call) noexcept {
  if (call.cancel_wanted) return finish(call, false, Errc::cancelled);
  ++counters_.rerun;
  calls_.wait_for_worker(call);
}

void Invocations::keep_message(Call& call, std::span<const std::byte> text) noexcept {
  std::memcpy(call.message.data(), text.data(), text.size());
  call.message_bytes = static_cast<std::uint32_t>(text.size());
}

void Invocations::expire(TimePoint now) noexcept {
  calls_.expire(now, [&](Call& call) {
    if (call.state == Call::State::sent) links_[call.link].slot(call.slot).call = none;
    finish(call, false, Errc::deadline_exceeded);
  });
}

void Invocations::cancel(CallHandle handle) noexcept {
  Call* const call = calls_.find(handle);
  if (call == nullptr || call->cancel_wanted) return;
  if (call->state == Call::State::waiting) return finish(*call, false, Errc::cancelled);
  if (call->state != Call::State::sent) return;
  call->cancel_wanted = true;
  call->cancel_unsent = true;
  ++cancels_unsent_;
  send_cancels();
}

void Invocations::send_cancels() noexcept {
  calls_.for_each_unfinished([&](Call& call) {
    if (!call.cancel_unsent || call.state != Call::State::sent) return;
    const Status sent = links_[call.link].send_cancel(call.slot);
    if (!sent.ok() && sent.error().code() == Errc::queue_full) return;
    call.cancel_unsent = false;
    --cancels_unsent_;
  });
}

}  // namespace sublet::client
