#include "benchmarks/swarm/lease_client.hpp"

namespace sublet::bench {
namespace {

constexpr std::chrono::milliseconds retry_pause{1};

double us_since(TimePoint start) {
  return std::chrono::duration<double, std::micro>(SteadyClock::now() - start).count();
}

}  // namespace

std::string lease_request(const std::string& function, std::uint64_t ttl_ms) {
  return http_request("POST /v1/leases",
                      R"({"function":")" + function + R"(","ttl_ms":)" + std::to_string(ttl_ms) + "}");
}

std::uint64_t take_grant(Swarm& swarm, std::string_view body) {
  const std::uint64_t lease = number_after(body, R"("lease":)");
  constexpr std::string_view node_key = R"("node":)";
  for (std::size_t at = body.find(node_key); at != std::string_view::npos; at = body.find(node_key, at + 1)) {
    swarm.serve(number_after(body, node_key, at),
                static_cast<std::uint32_t>(number_after(body, R"("worker":)", at)), lease);
  }
  return lease;
}

LeaseClient::LeaseClient(Loop& loop, const Target& target, Swarm& swarm, LeaseTimes& times,
                         const std::string& request, SteadyClock::duration pause)
    : loop_(loop),
      swarm_(swarm),
      times_(times),
      request_(request),
      pause_(pause),
      flow_(loop, target, *this) {}

void LeaseClient::start() {
  stopping_ = false;
  idle_ = false;
  ask();
}

void LeaseClient::ask() {
  if (stopping_) {
    idle_ = true;
    return;
  }
  lease_ = 0;
  flow_.send(request_);
}

void LeaseClient::ask_after(SteadyClock::duration pause) {
  if (pause <= SteadyClock::duration::zero() || stopping_) return ask();
  loop_.at(SteadyClock::now() + pause, [this] { ask(); });
}

void LeaseClient::on_reply(Flow&, unsigned status, std::string_view body) {
  if (lease_ != 0) return on_released(status);
  on_grant(status, body);
}

void LeaseClient::on_grant(unsigned status, std::string_view body) {
  if (status != 201) {
    ++times_.refused;
    times_.refusal = body;
    return ask_after(retry_pause);
  }
  times_.grant_us.push_back(us_since(flow_.sent_at()));
  lease_ = take_grant(swarm_, body);
  flow_.send(http_request("DELETE /v1/leases/" + std::to_string(lease_)));
}

void LeaseClient::on_released(unsigned status) {
  if (status == 200) times_.release_us.push_back(us_since(flow_.sent_at()));
  ask_after(pause_);
}

/// A lease whose release was under way runs out by itself.
void LeaseClient::on_lost(Flow&) {
  ++times_.lost;
  ask_after(retry_pause);
}

}  // namespace sublet::bench
