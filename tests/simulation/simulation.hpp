#pragma once

#include <functional>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/simulation/manager.hpp"
#include "tests/simulation/node.hpp"

namespace sublet::simulation {

/// A site in one process and one thread: nodes, clients and an operator against the manager's lease table,
/// with a network between them that delays, reorders, repeats and loses. All choices come from the seed.
class Simulation {
 public:
  /// @param trace Called with what happens, for the replay of a violation.
  Simulation(std::uint64_t seed, Fault fault, std::function<void(const std::string&)> trace = nullptr);

  /// Throws Violation.
  void run(int steps);

 private:
  struct Client {
    std::string tenant;
    api::Transports wishes{};
    std::vector<Token> tokens{};
  };
  /// A request on its way: arrive() is the manager's side, fail() the sender's when no answer comes.
  struct Request {
    std::function<void()> arrive;
    std::function<void()> fail;
    bool heartbeat = false;
  };
  /// A node and its requests under way; answers to older ones are of no interest.
  struct Agent {
    explicit Agent(Node what) : node(std::move(what)) {}

    Node node;
    std::uint64_t heartbeat = 0;  ///< Number of the one under way; 0: none.
    std::uint64_t poll = 0;
    bool registering = false;
  };

  void step();
  void pass_time();
  void deliver();
  void lose();
  void restart_manager();

  // What nodes do.
  void report(Agent& agent);
  void send_registration(Agent& agent);
  void send_heartbeat(Agent& agent);
  void answer_heartbeat(Agent& agent, std::uint64_t number, std::uint64_t version, const Result<bool>& heard);
  void poll_commands(Agent& agent);
  void upset(Agent& agent);
  void give_up(Agent& agent);

  // What clients and operators do.
  void acquire();
  void renew();
  void release();
  void replace();
  void connect();
  void order(Agent& agent);
  void want_back(Agent& agent);
  void take_grant(const api::LeaseGrant& grant, const lease::Ask& ask);
  void take_renewal(const api::LeaseGrant& grant);
  static void check_transports(const api::LeaseGrant& grant, const api::Transports& wishes);
  void check_ends(const api::LeaseGrant& grant) const;
  void check_refusal(std::uint64_t lease, const Error& error);
  void give_up(std::uint64_t lease);
  void knock(const Token& token);
  std::map<std::uint64_t, Client>::iterator some_client();
  api::Transports some_wishes();

  void send(Request request, bool again = true);
  void reply(std::function<void()> answer);

  // Checks.
  void check_step() const;
  void check_table();
  void check_disk();
  void come_to_rest();
  void settle_until(const char* otherwise, const std::function<bool()>& done);
  void end_clients();
  void settle();

  std::uint32_t below(std::uint32_t bound) {
    return std::uniform_int_distribution<std::uint32_t>(0, bound - 1)(random_);
  }
  bool one_in(std::uint32_t many) { return below(many) == 0; }
  [[nodiscard]] lease::Time time() const { return manager_.time(steady_); }
  /// The time that everybody should agree on.
  [[nodiscard]] std::uint64_t now_ms() const {
    return lease::to_ms(lease::Time(steady_.time_since_epoch() + std::chrono::hours(1)));
  }
  void tell(const std::string& text) const {
    if (trace_) trace_(text);
  }

  std::mt19937_64 random_;
  std::function<void(const std::string&)> trace_;
  bool reorders_;  ///< Also a node's heartbeats: then a node may have to refuse what was promised.
  TimePoint steady_{std::chrono::hours(1000)};
  Manager manager_;
  std::vector<Agent> agents_;
  std::map<std::uint64_t, Client> clients_;
  std::vector<Token> old_tokens_;  ///< Of leases that their clients have given up: some try them again.
  std::vector<Request> requests_;
  std::vector<std::function<void()>> answers_;
  /// When nodes are back with their owner, by registration: what is granted from then on must end by that.
  std::map<std::uint64_t, std::uint64_t> ends_ms_;
  std::uint64_t next_number_ = 1;
  std::uint64_t highest_lease_ = 0;
};

}  // namespace sublet::simulation
