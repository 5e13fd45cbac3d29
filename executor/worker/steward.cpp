#include "executor/worker/steward.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace sublet::worker {
namespace {

constexpr std::size_t transports_max = 8;

void drain_counter(int descriptor) noexcept {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(descriptor, &count, sizeof(count));
}

}  // namespace

Steward::Steward(const local::Fork& spec, int agent, std::vector<Opened>& transports,
                 const memory::Region& input, const memory::Region& output, local::UsageRecord& usage)
    : spec_(spec),
      agent_(agent),
      transports_(transports),
      input_(input),
      output_(output),
      usage_(usage),
      events_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

void Steward::run() {
  while (phase_ != Phase::leaving) {
    wait();
    serve_transports();
    read_agent();
    take_events();
    if (phase_ == Phase::serving) watch();
  }
}

void Steward::wait() {
  std::array<pollfd, transports_max + 3> waits{};
  std::size_t count = 0;
  waits[count++] = {agent_, POLLIN, 0};
  waits[count++] = {events_.get(), POLLIN, 0};
  if (invoker_) waits[count++] = {invoker_->awake_descriptor(), POLLIN, 0};
  for (const Opened& opened : transports_)
    waits[count++] = {opened.transport->service_descriptor(), POLLIN, 0};
  // While calls come a long one must be noticed; while the main thread sleeps only heartbeats matter.
  const bool ticking = invoker_ && !invoker_->asleep();
  std::chrono::milliseconds wait_max = ticking ? limits::long_call : limits::heartbeat_interval;
  if (phase_ == Phase::serving) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(lease_end_ - SteadyClock::now());
    wait_max = std::clamp(left, std::chrono::milliseconds(0), wait_max);
  }
  ::poll(waits.data(), count, static_cast<int>(wait_max.count()));
  if (invoker_) drain_counter(invoker_->awake_descriptor());
}

void Steward::serve_transports() {
  for (Opened& opened : transports_) {
    opened.transport->service(std::chrono::milliseconds(0));
    for (const transport::ConnectRequest& request : opened.transport->requests()) on_request(opened, request);
  }
}

void Steward::on_request(Opened& opened, const transport::ConnectRequest& request) {
  Result<Candidate> checked = check(opened, request);
  if (!checked) {
    opened.transport->reject(request.id, wire::bytes_of(wire::refuse(checked.error())));
    return;
  }
  candidate_ = *checked;
  const local::Attach ask{.token = candidate_->token};
  if (!local::send(agent_, ask).ok()) {
    refuse(Error(Errc::unavailable, "the worker's agent does not listen; try another worker"));
    return;
  }
  phase_ = Phase::asking;
}

Result<Steward::Candidate> Steward::check(Opened& opened, const transport::ConnectRequest& request) const {
  const Result<wire::Hello> hello = wire::parse_hello(request.private_data);
  if (!hello) return hello.error();
  const wire::Token& token = hello->token.token;
  if (token.worker != spec_.worker || !wire::verify(hello->token, spec_.key)) {
    return Error(Errc::permission_denied, "the token is not for this worker");
  }
  if (phase_ != Phase::waiting)
    return Error(Errc::permission_denied, "the worker's one connection is taken: the token was used");
  const Result<wire::Layout> layout = wire::layout_of(*hello, input_.size());
  if (!layout) return layout.error();
  if (module_.loaded() && token.function != spec_.function) {
    return Error(Errc::unavailable, "the worker has another function loaded; ask for another worker");
  }
  return Candidate{&opened, request.id, token, *layout};
}

void Steward::refuse(const Error& error) {
  if (candidate_)
    candidate_->opened->transport->reject(candidate_->request, wire::bytes_of(wire::refuse(error)));
  candidate_.reset();
  phase_ = Phase::waiting;
}

void Steward::read_agent() {
  for (;;) {
    const Result<local::Packet> packet = local::receive(agent_);
    if (!packet) {
      // Without its agent a worker is an orphan: nobody enforces its limits any more.
      if (packet.error().code() == Errc::closed) ::_exit(1);
      return;
    }
    if (const auto attached = packet->as<local::Attached>()) on_attached(*attached);
    if (const auto end = packet->as<local::End>()) on_end(end->reason);
  }
}

void Steward::on_attached(const local::Attached& attached) {
  if (phase_ != Phase::asking) return;
  if (attached.refused != 0) {
    refuse(Error(static_cast<Errc>(attached.refused), std::string(local::get(attached.text))));
    return;
  }
  // Counted by the clock that nobody sets: the agent knows how it stands to the manager's.
  lease_end_ = TimePoint(std::chrono::nanoseconds(attached.lease_end_ns));
  if (module_.loaded()) {
    accept();
    return;
  }
  phase_ = Phase::loading;
  give({.kind = Task::Kind::load, .path = std::string(local::get(attached.function_path))});
}

void Steward::take_events() {
  drain_counter(events_.get());
  std::optional<Result<Module>> loaded;
  std::optional<Stop> served;
  {
    const std::lock_guard lock(mutex_);
    loaded = std::exchange(loaded_, std::nullopt);
    served = std::exchange(served_, std::nullopt);
  }
  if (loaded) on_loaded(std::move(*loaded));
  if (served) leave(reason_of(*served), {});
}

void Steward::on_loaded(Result<Module> module) {
  if (!module) {
    if (candidate_) refuse(module.error());
    leave(local::EndReason::load_failed, module.error().message());
    return;
  }
  module_ = std::move(*module);
  if (phase_ == Phase::loading) accept();
}

void Steward::accept() {
  const Candidate& candidate = *candidate_;
  const OutputBuffers outputs(output_.size() - candidate.layout.slots * limits::message_bytes,
                              candidate.layout.slots, candidate.layout.slot_bytes);
  const wire::Welcome welcome{.region_base = candidate.opened->input.base,
                              .region_key = candidate.opened->input.key,
                              .region_bytes = input_.size(),
                              .output_bytes_max = outputs.largest(),
                              .entries = module_.entries()};
  auto connection = candidate.opened->transport->accept(candidate.request, wire::bytes_of(welcome));
  if (!connection) {
    leave(local::EndReason::client_lost, connection.error().message());
    return;
  }
  invoker_ = std::make_unique<Invoker>(Service{std::move(*connection), candidate.layout, &input_, &output_},
                                       module_, usage_);
  phase_ = Phase::serving;
  local::Serving serving;
  local::put(serving.transport, candidate.opened->transport->name());
  [[maybe_unused]] const Status told = local::send(agent_, serving);
  give({.kind = Task::Kind::serve, .invoker = invoker_.get()});
}

void Steward::on_end(local::EndReason reason) {
  if (!ordered_) ordered_ = reason;
  if (phase_ == Phase::serving) {
    invoker_->stop_soon();
  } else {
    refuse(Error(Errc::lease_revoked, "the worker is leaving; ask for another one"));
    leave(reason, {});
  }
}

void Steward::watch() {
  const TimePoint now = SteadyClock::now();
  check_renewal();
  if (now >= lease_end_) on_end(local::EndReason::expired);
  if (!invoker_->try_take()) return;
  watch_running(now);
  invoker_->give_back();
}

void Steward::watch_running(TimePoint now) {
  invoker_->count_running(now);
  invoker_->poll_arrivals();
  if (invoker_->client_gone()) end_now(local::EndReason::client_lost);
  if (ordered_) invoker_->refuse_queue("the worker is leaving; the call was not started");
  if (now > invoker_->running().deadline + limits::overrun_grace) {
    invoker_->abandon_running(wire::ReplyKind::deadline_exceeded,
                              "the function overran its deadline and was ended", limits::flush_max);
    end_now(local::EndReason::overrun);
  }
  if (now > lease_end_ + limits::overrun_grace) {
    invoker_->abandon_running(wire::ReplyKind::deadline_exceeded, "the lease expired while the function ran",
                              limits::flush_max);
    end_now(local::EndReason::expired);
  }
}

void Steward::check_renewal() {
  const std::uint64_t renewals = invoker_->renewals();
  if (renewals == renewals_seen_) return;
  renewals_seen_ = renewals;
  const auto renewed = wire::read_as<wire::SignedToken>(input_.bytes().subspan(wire::renew_offset));
  const wire::Token& held = candidate_->token;
  // What lies there is the client's writing: believe a newer token of the same lease only.
  if (!wire::verify(*renewed, spec_.key) || renewed->token.lease != held.lease ||
      renewed->token.worker != held.worker || renewed->token.expiry_ms <= held.expiry_ms) {
    return;
  }
  lease_end_ += std::chrono::milliseconds(renewed->token.expiry_ms - held.expiry_ms);
  candidate_->token.expiry_ms = renewed->token.expiry_ms;
}

void Steward::end_now(local::EndReason reason) {
  const local::Ended ended{.reason = reason};
  [[maybe_unused]] const Status told = local::send(agent_, ended);
  for (Opened& opened : transports_) opened.transport->service(std::chrono::milliseconds(0));
  ::_exit(3);  // The main thread is inside the user's function: nothing of it can be destroyed in order.
}

void Steward::leave(local::EndReason reason, std::string_view text) {
  local::Ended ended{.reason = reason};
  local::put(ended.text, text);
  [[maybe_unused]] const Status told = local::send(agent_, ended);
  phase_ = Phase::leaving;
  give({.kind = Task::Kind::leave});
}

local::EndReason Steward::reason_of(Stop stop) const noexcept {
  switch (stop) {
    case Stop::goodbye:
      return local::EndReason::released;
    case Stop::ordered:
      return ordered_.value_or(local::EndReason::drained);
    case Stop::client_lost:
    case Stop::misbehaved:
      return ordered_.value_or(local::EndReason::client_lost);
  }
  return local::EndReason::client_lost;
}

void Steward::give(Task task) {
  {
    const std::lock_guard lock(mutex_);
    task_ = std::move(task);
  }
  task_ready_.notify_one();
}

Task Steward::next_task() {
  std::unique_lock lock(mutex_);
  task_ready_.wait(
      lock, [this] { return task_.has_value(); });  // Bounded by the steward, which ends with the agent.
  return *std::exchange(task_, std::nullopt);
}

void Steward::loaded(Result<Module> module) {
  {
    const std::lock_guard lock(mutex_);
    loaded_.emplace(std::move(module));
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(events_.get(), &one, sizeof(one));
}

void Steward::served(Stop stop) {
  {
    const std::lock_guard lock(mutex_);
    served_ = stop;
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(events_.get(), &one, sizeof(one));
}

}  // namespace sublet::worker
