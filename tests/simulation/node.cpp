#include "tests/simulation/node.hpp"

#include <algorithm>
#include <iterator>

namespace sublet::simulation {

Node::Node(Fault fault, std::string name, std::uint32_t cores)
    : fault_(fault), name_(std::move(name)), cores_(cores) {}

api::NodeRegistration Node::about() const {
  return {.name = name_,
          .machine = "boot",
          .cores = cores_,
          .memory_bytes = std::uint64_t{1} << 34,
          .worker_region_bytes = 1,
          .version = "1"};
}

/// Every node speaks tcp; those with an even number of cores have a network card for verbs as well.
std::map<std::string, std::string> Node::endpoints() const {
  std::map<std::string, std::string> all{{"tcp", "a:1"}};
  if (cores_ % 2 == 0) all["verbs"] = "b:1";
  return all;
}

/// Tokens of an earlier registration are void: so are workers that only know its key.
void Node::registered(std::uint64_t given) {
  id = given;
  taken = 0;
  end([](const Process& process) { return process.token.lease == 0; });
}

api::Heartbeat Node::heartbeat() const {
  api::Heartbeat said;
  said.unchanged = known_;
  if (known_) return said;
  said.draining = draining_;
  for (const auto& [number, process] : processes_) {
    if (process.token.lease == 0) {
      said.ready.push_back({number, endpoints(), 0});
    } else {
      said.serving.push_back({number, process.token.lease});
    }
  }
  return said;
}

/// @param version Of what was said in the heartbeat that is answered.
void Node::heard(bool resend, std::uint64_t version) {
  known_ = !resend && version == version_;
}

template <typename Which>
void Node::end(const Which& which) {
  std::erase_if(processes_, [&](const auto& entry) { return which(entry.second); });
  changed();
  refill();
}

void Node::refill() {
  if (draining_ || id == 0) return;
  const auto ready = std::count_if(processes_.begin(), processes_.end(),
                                   [](const auto& entry) { return entry.second.token.lease == 0; });
  for (auto have = static_cast<std::uint32_t>(ready); have < cores_; ++have) {
    processes_[next_worker_++] = {.key = id, .token = {}};
  }
}

void Node::obey(const api::Command& command) {
  taken = command.sequence;
  if (command.kind == "drain") return set_draining(true);
  if (command.kind == "undrain") return set_draining(false);
  const bool whole = command.kind == "end_lease";
  if ((!whole && command.kind != "end_worker") || fault_ == Fault::agent_keeps_ended_open) return;
  if (whole) ended_.insert(command.lease);
  for (auto it = processes_.begin(); it != processes_.end();) {
    const bool of_lease = it->second.token.lease == command.lease;
    const bool this_one = it->first == command.worker && (of_lease || it->second.token.lease == 0);
    it = (whole ? of_lease : this_one) ? processes_.erase(it) : std::next(it);
  }
  changed();
  refill();
}

bool Node::admit(const Token& token, std::uint64_t now_ms, bool& cores_short) {
  const auto at = processes_.find(token.worker);
  if (at == processes_.end() || at->second.token.lease != 0 || at->second.key != token.node) return false;
  if (token.expiry_ms <= now_ms || ended_.contains(token.lease) || draining_) return false;
  std::uint32_t used = token.cores;
  for (const auto& [number, process] : processes_) used += process.token.cores;
  cores_short = used > cores_;
  if (cores_short) return false;
  at->second.token = token;
  changed();
  refill();
  return true;
}

bool Node::renew(const Token& token) {
  const auto at = processes_.find(token.worker);
  if (at == processes_.end() || at->second.key != token.node || at->second.token.lease != token.lease)
    return false;
  at->second.token.expiry_ms = std::max(at->second.token.expiry_ms, token.expiry_ms);
  return true;
}

void Node::pass(std::uint64_t now_ms) {
  if (fault_ == Fault::worker_outlives_expiry) return;
  const auto over = [now_ms](const Process& process) {
    return process.token.lease != 0 && process.token.expiry_ms <= now_ms;
  };
  const bool any = std::any_of(processes_.begin(), processes_.end(),
                               [&](const auto& entry) { return over(entry.second); });
  if (any) end(over);
}

void Node::leave(std::uint64_t lease) {
  end([lease](const Process& process) { return process.token.lease == lease; });
}

void Node::kill_worker(std::uint32_t choice) {
  if (processes_.empty()) return;
  processes_.erase(std::next(processes_.begin(), choice % processes_.size()));
  changed();
  refill();
}

void Node::crash() {
  processes_.clear();
  ended_.clear();
  next_worker_ = 1;
  draining_ = false;
  silent = false;
  id = 0;
  taken = 0;
  changed();
}

void Node::set_draining(bool draining) {
  draining_ = draining;
  if (draining) return end([](const Process&) { return true; });
  changed();
  refill();
}

bool Node::serves() const noexcept {
  return std::any_of(processes_.begin(), processes_.end(),
                     [](const auto& entry) { return entry.second.token.lease != 0; });
}

}  // namespace sublet::simulation
