#include "benchmarks/chaos/judge.hpp"

#include <sstream>

namespace sublet::bench::chaos {
namespace {

constexpr std::array<const char*, 11> names{
    "unused",          "begun",       "refused",     "ok",
    "function_failed", "not_started", "worker_lost", "deadline_exceeded",
    "cancelled",       "lease_ended", "wrong"};

struct Seen {
  Kind kind;
  Outcome outcome;
  std::uint32_t started;
  std::uint32_t finished;
};

/// What is wrong with one call; null when nothing is.
const char* fault_of(const Seen& call, bool client_killed) {
  const bool once = call.kind == Kind::once;
  if (once && call.started > 1) return "ran twice although it is not idempotent";
  if (call.finished > call.started) return "finished more often than it started";
  switch (call.outcome) {
    case Outcome::begun:
      return client_killed ? nullptr : "has no final status";
    case Outcome::ok:
      if (once && call.started != 1) return "is ok and did not run exactly once";
      return call.finished == 0 ? "is ok and did not run to its end" : nullptr;
    case Outcome::refused:
      return call.started > 0 ? "was refused at once and ran" : nullptr;
    case Outcome::not_started:
    case Outcome::cancelled:
      return once && call.started > 0 ? "ran although its status says that it did not" : nullptr;
    case Outcome::function_failed:
      return "failed although the function does not";
    case Outcome::wrong:
      return "has a wrong output, a second end or an error that no call may have";
    default:
      return nullptr;
  }
}

}  // namespace

Tally judge_calls(const std::vector<ClientRun>& runs) {
  Tally tally;
  for (const ClientRun& run : runs) {
    for (std::uint64_t number = 0; number < calls_max; ++number) {
      const Entry& entry = run.ledger[number];
      const Seen call{entry.kind, entry.outcome, entry.started, entry.finished};
      if (call.outcome == Outcome::unused) break;  // They are taken in order.
      ++tally.calls;
      ++tally.outcomes.at(static_cast<std::size_t>(call.outcome));
      if (call.started > 0) {
        Counted& counted = tally.leases[entry.lease];
        counted.started += call.started;
        counted.finished += call.finished;
      }
      const char* const fault = fault_of(call, run.killed);
      if (fault == nullptr) continue;
      std::ostringstream text;
      text << "call " << number << " of " << run.ledger.path() << " (lease " << entry.lease << ") " << fault
           << ": status " << names.at(static_cast<std::size_t>(call.outcome)) << ", started " << call.started
           << ", finished " << call.finished;
      if (entry.error != 0) text << ", error " << name(static_cast<Errc>(entry.error.load()));
      tally.violations.push_back(text.str());
    }
  }
  return tally;
}

std::vector<std::string> judge_usage(const api::Usage& by_lease,
                                     const std::map<std::uint64_t, Counted>& leases) {
  std::vector<std::string> violations;
  std::map<std::uint64_t, api::UsageRow> rows;
  for (const api::UsageRow& row : by_lease.rows) {
    if (!rows.emplace(row.lease, row).second)
      violations.push_back("lease " + std::to_string(row.lease) + " has two rows in the usage");
    // Each worker process can leave one call without an end, and only one that died.
    if (row.calls > row.calls_started || row.calls_started - row.calls > row.workers) {
      violations.push_back("lease " + std::to_string(row.lease) + ": " + std::to_string(row.calls_started) +
                           " calls started, " + std::to_string(row.calls) + " ended, on " +
                           std::to_string(row.workers) + " workers");
    }
    if (row.state == "active") violations.push_back("lease " + std::to_string(row.lease) + " is active");
  }
  for (const auto& [lease, counted] : leases) {
    const api::UsageRow row = rows.contains(lease) ? rows.at(lease) : api::UsageRow{};
    if (row.calls > counted.finished || counted.started > row.calls_started) {
      violations.push_back("lease " + std::to_string(lease) + ": the usage says " +
                           std::to_string(row.calls_started) + " started, " + std::to_string(row.calls) +
                           " ended; the function noted " + std::to_string(counted.started) + " and " +
                           std::to_string(counted.finished));
    }
  }
  for (const auto& [lease, row] : rows) {
    if (!leases.contains(lease) && row.calls > 0)
      violations.push_back("lease " + std::to_string(lease) + " has " + std::to_string(row.calls) +
                           " calls in the usage of which no function knows");
  }
  return violations;
}

std::string summary_of(const Tally& tally) {
  std::ostringstream text;
  text << tally.calls << " calls under " << tally.leases.size() << " leases:";
  for (std::size_t i = 1; i < names.size(); ++i) {
    if (tally.outcomes.at(i) > 0) text << " " << names.at(i) << " " << tally.outcomes.at(i);
  }
  return text.str();
}

}  // namespace sublet::bench::chaos
