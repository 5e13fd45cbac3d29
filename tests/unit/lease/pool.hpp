#pragma once

#include "runtime/lease/lease_table.hpp"
#include "tests/catch.hpp"

namespace sublet::lease_test {

using namespace std::chrono_literals;

inline constexpr std::uint64_t first_id = 1000;

/// A table, a clock that the test moves, and what nodes say.
struct Pool {
  lease::LeaseTable table{first_id};
  lease::Time now{1h};
  SecretKey key{std::byte{7}};

  std::uint64_t add(const std::string& name, std::uint32_t cores, std::uint64_t memory_bytes = 16ULL << 30) {
    return table.register_node({name, "boot", cores, memory_bytes, 1, "0.1.0"}, key, now).value();
  }
  static api::WorkerInfo worker(std::uint32_t id, std::uint32_t function = 0) {
    return {id, {{"tcp", "127.0.0.1:1"}}, function};
  }
  void ready(std::uint64_t node, const std::vector<std::uint32_t>& ids) { hear(node, ids, {}); }
  void hear(std::uint64_t node, const std::vector<std::uint32_t>& ids,
            const std::vector<api::Heartbeat::Serving>& serving) {
    api::Heartbeat said{.serving = serving};
    for (const std::uint32_t id : ids) said.ready.push_back(worker(id));
    REQUIRE(table.heartbeat(node, said, now).ok());
  }
  static lease::Ask ask(std::uint32_t workers, std::uint32_t cores = 1) {
    lease::Ask ask{5, "f@1", {}};
    ask.request.function = "f@1";
    ask.request.workers = workers;
    ask.request.cores = cores;
    ask.request.ttl_ms = 10'000;
    return ask;
  }
  Result<api::LeaseGrant> grant(std::uint32_t workers, std::uint32_t cores = 1) {
    return table.grant(ask(workers, cores), now);
  }
  void pass(std::chrono::milliseconds time) {
    now += time;
    table.tick(now);
  }
  api::NodeInfo node(std::uint64_t id) { return table.node(id, now).value(); }
  std::vector<api::Command> commands(std::uint64_t id, std::uint64_t after = 0) {
    return table.commands_after(id, after).value().commands;
  }
};

}  // namespace sublet::lease_test
