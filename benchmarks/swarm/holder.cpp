#include "benchmarks/swarm/holder.hpp"

#include <algorithm>

#include "benchmarks/swarm/lease_client.hpp"

namespace sublet::bench {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds tick{10};
constexpr milliseconds retry_pause{20};

}  // namespace

LeaseHolder::LeaseHolder(Loop& loop, const Target& target, Swarm& swarm, std::size_t connections,
                         std::string request, std::uint64_t ttl_ms)
    : loop_(loop),
      swarm_(swarm),
      request_(std::move(request)),
      renewal_(R"({"ttl_ms":)" + std::to_string(ttl_ms) + "}"),
      half_(ttl_ms / 2),
      doing_(connections) {
  for (std::size_t i = 0; i < connections; ++i) {
    flows_.emplace_back(loop, target, *this);
    idle_.push_back(i);
  }
  loop_.at(SteadyClock::now() + tick, [this] { renew_due(); });
}

bool LeaseHolder::acquire(std::uint64_t leases, TimePoint deadline) {
  work_.insert(work_.end(), leases - std::min(leases, held_), grant_one);
  go_on();
  return loop_.run([&] { return held_ >= leases; }, deadline);
}

void LeaseHolder::go_on() {
  while (!idle_.empty() && !work_.empty()) {
    const std::size_t connection = idle_.back();
    idle_.pop_back();
    const std::uint64_t work = work_.front();
    work_.pop_front();
    send(connection, work);
  }
}

void LeaseHolder::send(std::size_t connection, std::uint64_t work) {
  doing_[connection] = work;
  flows_[connection].send(work == grant_one
                              ? request_
                              : http_request("POST /v1/leases/" + std::to_string(work) + "/renew", renewal_));
}

void LeaseHolder::renew_due() {
  const TimePoint now = SteadyClock::now();
  while (!due_.empty() && due_.front().time <= now) {
    work_.push_back(due_.front().lease);
    due_.pop_front();
  }
  go_on();
  loop_.at(now + tick, [this] { renew_due(); });
}

void LeaseHolder::on_reply(Flow& flow, unsigned status, std::string_view body) {
  const auto connection = static_cast<std::size_t>(
      std::find_if(flows_.begin(), flows_.end(), [&](const Flow& one) { return &one == &flow; }) -
      flows_.begin());
  const std::uint64_t work = doing_[connection];
  if (work == grant_one) {
    on_grant(status, body);
  } else {
    on_renewed(work, flow, status);
  }
  idle_.push_back(connection);
  go_on();
}

/// The first renewal comes anywhere in the half, so that those of leases taken in a burst are none.
void LeaseHolder::on_grant(unsigned status, std::string_view body) {
  if (status != 201) {
    ++counts_.refused;
    counts_.refusal = body;
    loop_.at(SteadyClock::now() + retry_pause, [this] {
      work_.push_back(grant_one);
      go_on();
    });
    return;
  }
  ++held_;
  const std::uint64_t lease = take_grant(swarm_, body);
  const milliseconds part(std::uniform_int_distribution<milliseconds::rep>(0, half_.count())(random_));
  loop_.at(SteadyClock::now() + part, [this, lease] {
    work_.push_back(lease);
    go_on();
  });
}

void LeaseHolder::on_renewed(std::uint64_t lease, const Flow& flow, unsigned status) {
  if (status == 200) {
    ++counts_.renewed;
    const TimePoint now = SteadyClock::now();
    counts_.renew_us.push_back(std::chrono::duration<double, std::micro>(now - flow.sent_at()).count());
    due_.push_back({now + half_, lease});
  } else if (status == 404 || status == 410) {
    ++counts_.ended;
    --held_;
  } else {
    ++counts_.refused;
    due_.push_back({SteadyClock::now() + half_, lease});
  }
}

void LeaseHolder::on_lost(Flow& flow) {
  ++counts_.lost;
  const auto connection = static_cast<std::size_t>(
      std::find_if(flows_.begin(), flows_.end(), [&](const Flow& one) { return &one == &flow; }) -
      flows_.begin());
  loop_.at(SteadyClock::now() + retry_pause, [this, connection] { send(connection, doing_[connection]); });
}

}  // namespace sublet::bench
