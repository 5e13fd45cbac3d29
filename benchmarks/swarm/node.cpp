#include "benchmarks/swarm/node.hpp"

#include <algorithm>

#include "runtime/base/limits.hpp"

namespace sublet::bench {
namespace {

using std::chrono::milliseconds;

// As the agent's.
constexpr milliseconds back_off_first{50};
constexpr std::uint64_t memory_bytes = std::uint64_t{1} << 38;
constexpr unsigned not_found = 404;

}  // namespace

SimNode::SimNode(Loop& loop, const Target& target, const NodeShape& shape, NodeCounts& counts,
                 std::uint32_t number)
    : loop_(loop),
      shape_(shape),
      counts_(counts),
      name_("sim" + std::to_string(number)),
      random_(number + 1),
      reports_(loop, target, *this, number + 1),
      commands_(loop, target, *this, number + 1) {
  refill();
}

SteadyClock::duration SimNode::back_off(int failures) {
  const milliseconds full =
      std::min(limits::agent_back_off_max, back_off_first * (1 << std::min(failures, 7)));
  return milliseconds(
      std::uniform_int_distribution<milliseconds::rep>(full.count() / 2, full.count())(random_));
}

/// Within one period, so that the heartbeats of many spread over it.
milliseconds SimNode::somewhen() {
  return milliseconds(
      std::uniform_int_distribution<milliseconds::rep>(0, limits::node_heartbeat.count())(random_));
}

void SimNode::start() {
  report_at(SteadyClock::now());
}

void SimNode::send_registration() {
  const api::NodeRegistration about{.name = name_,
                                    .machine = "simulated",
                                    .cores = shape_.cores,
                                    .memory_bytes = memory_bytes,
                                    .worker_region_bytes = 1 << 20,
                                    .version = "1"};
  reports_.send(http_request("POST /v1/nodes", api::to_json(about)));
}

void SimNode::report_at(TimePoint time) {
  if (reports_.busy() || time >= report_due_) return;
  report_due_ = time;
  loop_.at(time, [this, time] {
    if (report_due_ != time || reports_.busy()) return;
    report_due_ = TimePoint::max();
    if (id_ == 0) return send_registration();
    report();
  });
}

void SimNode::report() {
  ended_sent_ = ended_.size();
  said_all_ = changed_ || !known_ || !shape_.light;
  telling_ = changed_;
  changed_ = false;
  ++counts_.heartbeats;
  reports_.send(http_request("POST /v1/nodes/" + std::to_string(id_) + "/heartbeat",
                             said_all_ ? heartbeat() : std::string(R"({"unchanged":true})")));
}

/// As good as random, and the same when it is said again.
std::uint64_t SimNode::usage_id(std::uint32_t worker) const noexcept {
  std::uint64_t x = (id_ << 32 ^ worker) * 0x9E3779B97F4A7C15U;
  x ^= x >> 29;
  return (x * 0xBF58476D1CE4E5B9U >> 11) + 1;
}

/// By hand, since it is what this program does most; the manager checks it.
std::string SimNode::heartbeat() const {
  std::string text = R"({"ready":[)";
  const auto open = [&text] { text += text.back() == '[' ? "{" : ",{"; };
  for (const std::uint32_t worker : ready_) {
    open();
    text.append(R"("id":)").append(std::to_string(worker));
    text.append(R"(,"endpoints":{"shm":"/run/sublet/w.sock","tcp":"127.0.0.1:4711"},"function":0})");
  }
  text.append(R"(],"serving":[)");
  for (const auto& [worker, lease] : serving_) {
    open();
    text.append(R"("worker":)")
        .append(std::to_string(worker))
        .append(R"(,"lease":)")
        .append(std::to_string(lease))
        .append("}");
  }
  text.append(R"(],"ended":[)");
  for (const api::Heartbeat::Ended& ended : ended_) {
    open();
    text.append(R"("worker":)").append(std::to_string(ended.worker)).append(R"(,"lease":)");
    text.append(std::to_string(ended.lease)).append(R"(,"reason":")").append(ended.reason).append("\"}");
  }
  text.append(R"(],"draining":false,"usage":[)");
  for (const api::Heartbeat::Ended& ended : ended_) {
    open();
    text.append(R"("id":)").append(std::to_string(usage_id(ended.worker))).append(R"(,"lease":)");
    text.append(std::to_string(ended.lease));
    text.append(R"(,"calls_started":1,"calls":1,"execution_ns":1000,"hot_ns":200000})");
  }
  text.append("]}");
  return text;
}

void SimNode::poll_commands() {
  if (commands_.busy() || id_ == 0) return;
  commands_.send(
      http_request("GET /v1/nodes/" + std::to_string(id_) + "/commands?after=" + std::to_string(seen_)));
}

void SimNode::on_reply(Flow& flow, unsigned status, std::string_view body) {
  if (&flow == &commands_) return on_commands(status, body);
  if (id_ == 0 && status == 201) return on_registered(body);
  on_heard(status, body);
}

void SimNode::on_registered(std::string_view body) {
  id_ = number_after(body, R"("node":)");
  ++counts_.registered;
  seen_ = 0;
  changed_ = true;
  report_failures_ = 0;
  report_at(SteadyClock::now());
  poll_commands();
}

void SimNode::on_heard(unsigned status, std::string_view body) {
  if (status == not_found && id_ != 0) {
    id_ = 0;
    commands_.close();
    return report_at(SteadyClock::now());
  }
  if (status != 200) {
    ++counts_.refused;
    changed_ = true;
    return report_at(SteadyClock::now() + back_off(++report_failures_));
  }
  report_failures_ = 0;
  telling_ = false;
  counts_.heartbeat_us.push_back(
      std::chrono::duration<float, std::micro>(SteadyClock::now() - reports_.sent_at()).count());
  ended_.erase(ended_.begin(), ended_.begin() + static_cast<std::ptrdiff_t>(ended_sent_));
  known_ = body.find(R"("resend":true)") == std::string_view::npos;
  counts_.resends += known_ ? 0 : 1;
  if (changed_ || (!known_ && !said_all_)) return report_at(SteadyClock::now());
  report_at(SteadyClock::now() + (first_ ? somewhen() : limits::node_heartbeat));
  first_ = false;
}

void SimNode::on_commands(unsigned status, std::string_view body) {
  if (status != 200) {  // An unknown node learns it from its next heartbeat.
    ++counts_.refused;
    loop_.at(SteadyClock::now() + back_off(++command_failures_), [this] { poll_commands(); });
    return;
  }
  command_failures_ = 0;
  constexpr std::string_view sequence_key = R"("sequence":)";
  constexpr std::string_view end_key = R"("kind":"end_lease","lease":)";
  for (std::size_t at = body.find(sequence_key); at != std::string_view::npos;
       at = body.find(sequence_key, at + 1)) {
    seen_ = number_after(body, sequence_key, at);
    ++counts_.commands;
    const std::size_t kind = body.find(R"("kind":)", at);
    if (body.substr(kind).starts_with(end_key)) end_lease(number_after(body, end_key, kind));
  }
  poll_commands();
}

void SimNode::end_lease(std::uint64_t lease) {
  const auto held = leases_.find(lease);
  if (held == leases_.end()) return;
  for (const std::uint32_t worker : held->second) {
    serving_.erase(worker);
    ended_.push_back({worker, lease, "released"});
  }
  leases_.erase(held);
  refill();
  changed_ = true;
  report_at(SteadyClock::now() + shape_.birth);
}

void SimNode::refill() {
  while (ready_.size() < shape_.ready) ready_.insert(ready_.end(), next_worker_++);
}

void SimNode::serve(std::uint32_t worker, std::uint64_t lease) {
  ready_.erase(worker);
  serving_[worker] = lease;
  leases_[lease].push_back(worker);
  refill();
  changed_ = true;
  report_at(SteadyClock::now() + shape_.birth);
}

void SimNode::on_lost(Flow& flow) {
  ++counts_.lost;
  if (&flow == &commands_) {
    loop_.at(SteadyClock::now() + back_off(++command_failures_), [this] { poll_commands(); });
    return;
  }
  changed_ = true;  // What the manager has heard is unknown.
  report_at(SteadyClock::now() + back_off(++report_failures_));
}

}  // namespace sublet::bench
