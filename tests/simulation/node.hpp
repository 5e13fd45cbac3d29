#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "runtime/lease/lease_table.hpp"
#include "tests/simulation/faults.hpp"

namespace sublet::simulation {

/// What a client shows to a worker.
struct Token {
  std::uint64_t node = 0;  ///< The registration whose key signed it.
  std::uint32_t worker = 0;
  std::uint64_t lease = 0;
  std::uint64_t expiry_ms = 0;
  std::uint32_t cores = 0;
};

/// A node as it really is: what the manager knows of it is late.
class Node {
 public:
  Node(Fault fault, std::string name, std::uint32_t cores);

  // As the manager hears it.
  [[nodiscard]] api::NodeRegistration about() const;
  [[nodiscard]] api::Heartbeat heartbeat() const;
  void registered(std::uint64_t id);
  void heard(bool resend, std::uint64_t version);
  void unheard() noexcept { known_ = false; }
  /// Of what a heartbeat says now.
  [[nodiscard]] std::uint64_t version() const noexcept { return version_; }
  void obey(const api::Command& command);

  // What happens on it.
  /// Whether the worker lets the client in. @param cores_short The node has fewer cores free than promised.
  bool admit(const Token& token, std::uint64_t now_ms, bool& cores_short);
  /// The client's connection, or a later token on it.
  bool renew(const Token& token);
  /// Ends what has run out.
  void pass(std::uint64_t now_ms);
  /// The client ends its calls.
  void leave(std::uint64_t lease);
  void kill_worker(std::uint32_t choice);
  /// The agent dies and its workers with it.
  void crash();
  void set_draining(bool draining);

  std::uint64_t id = 0;  ///< 0: not registered.
  std::uint64_t taken = 0;
  bool silent = false;
  [[nodiscard]] bool serves() const noexcept;
  [[nodiscard]] const std::string& name() const noexcept { return name_; }

  struct Process {
    std::uint64_t key = 0;  ///< The registration that it was forked under.
    Token token;            ///< lease 0: ready.
  };
  [[nodiscard]] const std::map<std::uint32_t, Process>& processes() const noexcept { return processes_; }

 private:
  [[nodiscard]] std::map<std::string, std::string> endpoints() const;
  void refill();
  void changed() noexcept {
    known_ = false;
    ++version_;
  }
  template <typename Which>
  void end(const Which& which);

  Fault fault_;
  std::string name_;
  std::uint32_t cores_;
  std::map<std::uint32_t, Process> processes_;
  std::set<std::uint64_t> ended_;  ///< Leases whose end this agent has heard.
  std::uint32_t next_worker_ = 1;
  bool draining_ = false;
  bool known_ = false;  ///< The manager has been told all.
  std::uint64_t version_ = 0;
};

}  // namespace sublet::simulation
