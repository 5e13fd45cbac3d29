#pragma once

#include <cstdint>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "benchmarks/swarm/node.hpp"

namespace sublet::bench {

/// Many leases that are held and renewed at half of their time, over a few kept connections.
class LeaseHolder : public Flow::Owner {
 public:
  struct Counts {
    std::uint64_t renewed = 0;
    std::uint64_t refused = 0;  ///< Grants.
    std::uint64_t ended = 0;    ///< Leases that a renewal found ended.
    std::uint64_t lost = 0;     ///< Connections with a request under way.
    std::vector<double> renew_us;
    std::string refusal;
  };

  LeaseHolder(Loop& loop, const Target& target, Swarm& swarm, std::size_t connections, std::string request,
              std::uint64_t ttl_ms);

  /// Acquires until `leases` are held. False when `deadline` comes first.
  [[nodiscard]] bool acquire(std::uint64_t leases, TimePoint deadline);
  [[nodiscard]] std::uint64_t held() const noexcept { return held_; }
  [[nodiscard]] Counts& counts() noexcept { return counts_; }

 private:
  static constexpr std::uint64_t grant_one = 0;
  struct Due {
    TimePoint time;
    std::uint64_t lease;
  };

  void on_reply(Flow& flow, unsigned status, std::string_view body) override;
  void on_lost(Flow& flow) override;
  void on_grant(unsigned status, std::string_view body);
  void on_renewed(std::uint64_t lease, const Flow& flow, unsigned status);
  void go_on();
  void renew_due();
  void send(std::size_t connection, std::uint64_t work);

  Loop& loop_;
  Swarm& swarm_;
  std::string request_;
  std::string renewal_;
  std::chrono::milliseconds half_;
  std::minstd_rand random_{1};
  std::deque<Flow> flows_;
  std::vector<std::uint64_t> doing_;  // Of each connection: a lease to renew, or grant_one.
  std::vector<std::size_t> idle_;
  std::deque<std::uint64_t> work_;
  std::deque<Due> due_;  // All wait equally long, so the first is the next.
  std::uint64_t held_ = 0;
  Counts counts_;
};

}  // namespace sublet::bench
