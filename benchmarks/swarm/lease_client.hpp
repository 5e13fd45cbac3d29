#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "benchmarks/swarm/node.hpp"

namespace sublet::bench {

/// What clients have measured.
struct LeaseTimes {
  std::vector<double> grant_us;
  std::vector<double> release_us;
  std::uint64_t refused = 0;  ///< Requests for a lease that got none.
  std::uint64_t lost = 0;     ///< Connections with a request under way.
  std::string refusal;        ///< The last one's body.

  void clear() { *this = {}; }
};

/// Grants and releases one lease after another over one kept connection, until it is stopped.
class LeaseClient : private Flow::Owner {
 public:
  /// @param pause Between a release and the next request.
  LeaseClient(Loop& loop, const Target& target, Swarm& swarm, LeaseTimes& times, const std::string& request,
              SteadyClock::duration pause = {});

  void start();
  /// Ends after the release of what it holds.
  void stop() noexcept { stopping_ = true; }
  [[nodiscard]] bool idle() const noexcept { return idle_; }

 private:
  void on_reply(Flow& flow, unsigned status, std::string_view body) override;
  void on_lost(Flow& flow) override;
  void ask();
  void ask_after(SteadyClock::duration pause);
  void on_grant(unsigned status, std::string_view body);
  void on_released(unsigned status);

  Loop& loop_;
  Swarm& swarm_;
  LeaseTimes& times_;
  std::string request_;
  SteadyClock::duration pause_;
  Flow flow_;
  std::uint64_t lease_ = 0;
  bool stopping_ = false;
  bool idle_ = true;
};

/// The body of a request for one worker with one core.
[[nodiscard]] std::string lease_request(const std::string& function, std::uint64_t ttl_ms);
/// Tells the nodes about the workers of a grant; the lease.
std::uint64_t take_grant(Swarm& swarm, std::string_view body);

}  // namespace sublet::bench
