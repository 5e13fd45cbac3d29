#include "executor/worker/invoker.hpp"

#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cstring>

#include "runtime/base/assert.hpp"

namespace sublet::worker {
namespace {

constexpr std::size_t batch_max = 64;
constexpr std::uint32_t polls_per_look = 16;  ///< At the clock: a poll of tcp takes a microsecond.
constexpr std::uint32_t polls_per_yield =
    64;  ///< A worker may share its core with a client on a small machine.
constexpr std::chrono::milliseconds sleep_max{1000};
constexpr std::uint64_t flush_context = ~std::uint64_t{0};  ///< No position in the output ring.

/// Shorter payloads come with their header's neighbours; what follows the first lines the processor guesses.
constexpr std::size_t fetched_ahead_from = 256;
constexpr std::size_t fetched_ahead = 512;
constexpr std::size_t cache_line = 64;

/// The payload's first lines lie in the writer's cache: on their way while the call is looked at.
void fetch_ahead(const std::byte* payload) noexcept {
  for (std::size_t i = 0; i < fetched_ahead; i += cache_line) __builtin_prefetch(payload + i);
}

bool in_range(std::uint64_t offset, std::uint64_t bytes, std::uint64_t size) noexcept {
  return offset <= size && bytes <= size - offset;
}

}  // namespace

Invoker::Invoker(Service service, const Module& module, local::UsageRecord& usage)
    : service_(std::move(service)),
      module_(module),
      usage_(usage),
      buffers_(service_.output->size() - text_bytes(), service_.layout.slots, service_.layout.slot_bytes),
      slots_(service_.layout.slots),
      queue_(service_.layout.slots),
      wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      awake_timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) {
  SUBLET_ASSERT(wake_.valid() && awake_timer_.valid());
}

Stop Invoker::run() noexcept {
  std::array<transport::Completion, batch_max> batch;
  busy_at_ = SteadyClock::now();
  usage_.woke(busy_at_);
  while (!finished_) {
    const std::size_t count = service_.connection->poll(batch);
    for (std::size_t i = 0; i < count; ++i) on_completion(batch[i]);
    if (stop_soon_.load(std::memory_order_relaxed) && !finished_) {
      drain();
    } else if (queue_size_ > 0) {
      run_next();
    } else if (count == 0) {
      idle();
    }
  }
  usage_.polled(SteadyClock::now());
  service_.connection->close();
  return stop_;
}

void Invoker::on_completion(const transport::Completion& completion) noexcept {
  switch (completion.kind) {
    case transport::Completion::Kind::arrival:
      on_arrival(completion.word, completion.length);
      break;
    case transport::Completion::Kind::sent:
      if (completion.context == flush_context) {
        flushed_ = true;
      } else {
        buffers_.release(completion.context);
      }
      break;
    case transport::Completion::Kind::down:
      if (!finished_) stop_ = completion.error == Errc::closed ? Stop::goodbye : Stop::client_lost;
      finished_ = true;
      queue_size_ = 0;
      break;
  }
}

void Invoker::on_arrival(std::uint32_t packed, std::uint64_t length) noexcept {
  const wire::Word word = wire::Word::unpack(packed);
  switch (static_cast<wire::RequestKind>(word.kind)) {
    case wire::RequestKind::invoke:
    case wire::RequestKind::invoke_again:
      enqueue(word, length);
      break;
    case wire::RequestKind::attach:
      on_attach(length);
      break;
    case wire::RequestKind::renew:
      renewals_.fetch_add(1, std::memory_order_release);
      break;
    case wire::RequestKind::cancel:
      if (word.slot < slots_.size() && slots_[word.slot].queued &&
          slots_[word.slot].last_generation == word.generation) {
        slots_[word.slot].cancelled = true;
      }
      break;
    case wire::RequestKind::goodbye:
      stop_ = Stop::goodbye;
      finished_ = true;
      break;
    default:  // A peer of another protocol, or a broken one: what it says next cannot be believed.
      stop_ = Stop::misbehaved;
      finished_ = true;
      break;
  }
}

void Invoker::on_attach(std::uint64_t length) noexcept {
  const auto attach = wire::read_as<wire::Attach>(service_.input->bytes().subspan(wire::attach_offset));
  const std::uint64_t messages = slots_.size() * limits::message_bytes;
  if (attached_ || length != sizeof(wire::Attach) ||
      !in_range(attach->messages_offset, messages, attach->region_bytes)) {
    stop_ = Stop::misbehaved;
    finished_ = true;
    return;
  }
  client_ = {.base = attach->region_base, .key = attach->region_key, .bytes = attach->region_bytes};
  messages_offset_ = attach->messages_offset;
  hot_ = HotWindow(std::chrono::microseconds(attach->hot_us));
  attached_ = true;
}

void Invoker::enqueue(const wire::Word& word, std::uint64_t length) noexcept {
  if (!attached_ || word.slot >= slots_.size()) {
    stop_ = Stop::misbehaved;
    finished_ = true;
    return;
  }
  if (length > fetched_ahead_from) {
    fetch_ahead(service_.input->data() + service_.layout.slot_offset(word.slot) + wire::payload_offset);
  }
  Slot& slot = slots_[word.slot];
  // A generation seen before is a duplicate; a slot in the queue is not the client's to use yet.
  if (word.generation == slot.last_generation || slot.queued) return;
  slot = {.last_generation = word.generation,
          .queued = true,
          .cancelled = false,
          .header_known = slot.header_known};
  const bool full = static_cast<wire::RequestKind>(word.kind) == wire::RequestKind::invoke;
  queue_[(queue_head_ + queue_size_++) % queue_.size()] = {word.slot, word.generation, full, length,
                                                           SteadyClock::now()};
}

void Invoker::run_next() noexcept {
  const Pending pending = queue_[queue_head_];
  queue_head_ = (queue_head_ + 1) % queue_.size();
  --queue_size_;
  Slot& slot = slots_[pending.slot];
  slot.queued = false;
  // Of a cancelled call too: the client takes it for sent, and says it no more.
  slot.header_known =
      slot.header_known || (pending.full_header && pending.bytes >= sizeof(wire::RequestHeader));
  if (slot.cancelled) {
    reply(wire::ReplyKind::cancelled, pending.slot, pending.generation, {});
    return;
  }
  wire::RequestHeader header;  // A copy: the client could change the slot while it is read.
  std::memcpy(&header,
              service_.input->data() + service_.layout.slot_offset(pending.slot) + wire::header_offset,
              sizeof(header));
  if (const char* wrong = validate(header, pending); wrong != nullptr) {
    slot.header_known = false;
    reply(wire::ReplyKind::refused, pending.slot, pending.generation, wrong);
    return;
  }
  running_ = {pending.slot, pending.generation,
              pending.arrived + std::chrono::microseconds(header.deadline_us)};
  // When nothing ran since it arrived, that was just now: one look at the clock less.
  const TimePoint now = pending.arrived > busy_at_ ? pending.arrived : SteadyClock::now();
  if (now >= running_.deadline) {
    reply(wire::ReplyKind::deadline_exceeded, pending.slot, pending.generation,
          "the deadline passed before the call began");
    return;
  }
  execute(header, pending, now);
}

const char* Invoker::validate(const wire::RequestHeader& header, const Pending& pending) const noexcept {
  constexpr std::uint64_t deadline_us_max = std::chrono::microseconds(limits::call_deadline_max).count();
  if (pending.full_header && pending.bytes < sizeof(header)) return "the request is shorter than its header";
  if (!slots_[pending.slot].header_known) return "the slot has no header yet";
  if ((header.flags & ~wire::flag_large_input) != 0)
    return "the header has unknown flags; update the older side";
  if (header.entry >= module_.entries()) return "the module has no such entry";
  if (header.deadline_us == 0 || header.deadline_us > deadline_us_max) return "the deadline is out of range";
  if (!in_range(header.output_offset, header.output_capacity, client_.bytes)) {
    return "the output lies outside the client's region";
  }
  if (header.output_capacity > buffers_.largest())
    return "the output's capacity exceeds what the worker has room for";
  if ((header.flags & wire::flag_large_input) != 0) {
    const wire::Layout& layout = service_.layout;
    if (header.input_offset < layout.large_offset ||
        !in_range(header.input_offset - layout.large_offset, header.input_bytes, layout.large_bytes)) {
      return "the input lies outside the worker's large area";
    }
    return nullptr;
  }
  const std::uint64_t payload = pending.bytes - (pending.full_header ? sizeof(header) : 0);
  if (payload > wire::slot_payload_bytes(service_.layout.slot_bytes)) return "the payload exceeds its slot";
  return nullptr;
}

void Invoker::execute(const wire::RequestHeader& header, const Pending& pending, TimePoint now) noexcept {
  std::array<char, limits::message_bytes> message;
  message[0] = '\0';
  sublet_call call{};
  call.size_bytes = sizeof(call);
  call.entry = header.entry;
  if ((header.flags & wire::flag_large_input) != 0) {
    call.input = service_.input->data() + header.input_offset;
    call.input_bytes = header.input_bytes;
  } else {
    call.input = service_.input->data() + service_.layout.slot_offset(pending.slot) + wire::payload_offset;
    call.input_bytes = pending.bytes - (pending.full_header ? sizeof(header) : 0);
  }
  const bool staged = buffers_.fits_stage(header.output_capacity);
  OutputBuffers::Piece piece{buffers_.stage(pending.slot), 0};
  if (!staged) {
    for (;;) {  // Ends: earlier outputs are sent, or the connection goes down.
      const auto reserved = buffers_.reserve(header.output_capacity);
      if (reserved) {
        piece = *reserved;
        break;
      }
      poll_arrivals();
      if (finished_) return;
      now = SteadyClock::now();
    }
  }
  call.output = service_.output->data() + piece.offset;
  call.output_capacity = header.output_capacity;
  call.deadline_us = header.deadline_us;
  call.message = message.data();
  call.message_capacity = message.size();

  usage_.call_begins(now);
  run_function(call);
  busy_at_ = SteadyClock::now();
  usage_.call_returned(busy_at_);
  if (finished_) return;
  if (failed_) {
    message.back() = '\0';
    reply(wire::ReplyKind::function_failed, pending.slot, pending.generation, message.data());
    return;
  }
  const auto* const result = static_cast<const std::byte*>(call.output);
  const bool in_ring = !staged && result == service_.output->data() + piece.offset;
  transport::Connection::WriteOptions options;
  if (in_ring) options = {.signal = true, .context = buffers_.commit(piece, call.output_bytes)};
  write_reply({result, call.output_bytes}, header.output_offset,
              {static_cast<std::uint8_t>(wire::ReplyKind::ok), pending.slot, pending.generation}, options);
}

void Invoker::run_function(sublet_call& call) noexcept {
  crash_word_.store(wire::Word{1, running_.slot, running_.generation}.pack(), std::memory_order_relaxed);
  owner_.store(Owner::running, std::memory_order_release);
  failed_ = !module_.call(call);
  for (;;) {  // The steward holds the connection for one short poll at a time.
    Owner expected = Owner::running;
    if (owner_.compare_exchange_weak(expected, Owner::invoker, std::memory_order_acquire)) break;
    cpu_relax();
  }
  crash_word_.store(0, std::memory_order_relaxed);
}

void Invoker::reply(wire::ReplyKind kind, std::uint16_t slot, std::uint16_t generation,
                    std::string_view text) noexcept {
  const std::string_view cut = text.substr(0, limits::message_bytes);
  // Registered, and apart from the slot's stage, which a function that is given up may still write to.
  std::byte* room =
      service_.output->data() + service_.output->size() - text_bytes() + slot * limits::message_bytes;
  std::copy_n(reinterpret_cast<const std::byte*>(cut.data()), cut.size(), room);
  write_reply({room, cut.size()}, messages_offset_ + slot * limits::message_bytes,
              {static_cast<std::uint8_t>(kind), slot, generation}, {});
}

void Invoker::write_reply(std::span<const std::byte> bytes, std::uint64_t offset, wire::Word word,
                          transport::Connection::WriteOptions options) noexcept {
  if (static_cast<wire::ReplyKind>(word.kind) != wire::ReplyKind::draining) {
    last_answered_.slot = word.slot;
    last_answered_.generation = word.generation;
  }
  const std::array pieces{bytes};
  while (!finished_) {
    const Status written = service_.connection->write(pieces, client_, offset, word.pack(), options);
    if (written.ok()) return;
    if (written.error().code() != Errc::queue_full) {
      stop_ = Stop::client_lost;
      finished_ = true;
      return;
    }
    poll_arrivals();
  }
}

void Invoker::poll_arrivals() noexcept {
  std::array<transport::Completion, batch_max> batch;
  const std::size_t count = service_.connection->poll(batch);
  for (std::size_t i = 0; i < count; ++i) on_completion(batch[i]);
}

void Invoker::refuse_queue(std::string_view why) noexcept {
  while (queue_size_ > 0 && !finished_) {
    const Pending pending = queue_[queue_head_];
    queue_head_ = (queue_head_ + 1) % queue_.size();
    --queue_size_;
    slots_[pending.slot].queued = false;
    reply(wire::ReplyKind::not_started, pending.slot, pending.generation, why);
  }
}

void Invoker::drain() noexcept {
  say_goodbye("the worker is leaving; the call was not started", limits::flush_max);
  if (!finished_) stop_ = Stop::ordered;
  finished_ = true;
}

void Invoker::say_goodbye(std::string_view why, std::chrono::milliseconds wait_max) noexcept {
  refuse_queue(why);
  flush(wait_max);
  refuse_queue(why);
  // What crosses our leaving on its way is not lost either: the client learns that it never started.
  if (!finished_) service_.connection->say_last_words(wire::bytes_of(last_answered_));
}

void Invoker::flush(std::chrono::milliseconds wait_max) noexcept {
  if (!attached_) return;
  // A reply counts as out when the write behind it was sent: writes leave in order.
  flushed_ = false;
  write_reply({}, messages_offset_, {static_cast<std::uint8_t>(wire::ReplyKind::draining), 0, 0},
              {.signal = true, .context = flush_context});
  const TimePoint until = SteadyClock::now() + wait_max;
  while (!finished_ && !flushed_ && SteadyClock::now() < until) poll_arrivals();
}

void Invoker::abandon_running(wire::ReplyKind status, std::string_view why,
                              std::chrono::milliseconds wait_max) noexcept {
  usage_.call_cut(SteadyClock::now());
  reply(status, running_.slot, running_.generation, why);
  say_goodbye("the worker is ended; the call was not started", wait_max);
  service_.connection->close();
}

bool Invoker::try_take() noexcept {
  Owner expected = Owner::running;
  return owner_.compare_exchange_strong(expected, Owner::steward, std::memory_order_acquire);
}

void Invoker::give_back() noexcept {
  owner_.store(Owner::running, std::memory_order_release);
}

void Invoker::stop_soon() noexcept {
  stop_soon_.store(true, std::memory_order_release);
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

void Invoker::say_crashed(int signal) noexcept {
  const std::uint32_t packed = crash_word_.load(std::memory_order_relaxed);
  if (packed == 0) return;
  usage_.call_cut(SteadyClock::now());
  const wire::Word word = wire::Word::unpack(packed);
  const wire::LastWords last{
      .slot = word.slot, .generation = word.generation, .signal = static_cast<std::uint32_t>(signal)};
  service_.connection->say_last_words(wire::bytes_of(last));
}

void Invoker::idle() noexcept {
  if (++idle_polls_ % polls_per_look != 0) {
    cpu_relax();
    return;
  }
  const TimePoint now = SteadyClock::now();
  usage_.polled(now);
  if (now - busy_at_ < hot_.now()) {
    if (idle_polls_ % polls_per_yield == 0) ::sched_yield();
  } else {
    sleep();
  }
}

void Invoker::sleep() noexcept {
  if (!service_.connection->arm()) return;
  asleep_.store(true, std::memory_order_release);
  std::array<pollfd, 2> waits{{{service_.connection->descriptor(), POLLIN, 0}, {wake_.get(), POLLIN, 0}}};
  const int ready = ::poll(waits.data(), waits.size(), static_cast<int>(sleep_max.count()));
  const TimePoint now = SteadyClock::now();
  usage_.woke(now);
  if (ready > 0) {
    watch_from(now);
    hot_.waited(now - busy_at_);
    busy_at_ = now;
  }
  asleep_.store(false, std::memory_order_release);
}

/// The steward looks for a long call a little later; a timer, so that waking costs no hand-off now. One
/// that is still to fire will do, unless it could find us not yet awake.
void Invoker::watch_from(TimePoint now) noexcept {
  if (now + limits::long_call / 8 < steward_looks_) return;
  steward_looks_ = now + limits::long_call;
  const auto delay = std::chrono::nanoseconds(limits::long_call).count();
  const itimerspec once{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_nsec = delay}};
  ::timerfd_settime(awake_timer_.get(), 0, &once, nullptr);
}

}  // namespace sublet::worker
