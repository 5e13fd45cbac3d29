#include "benchmarks/frame/pinning.hpp"

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace sublet::bench {

Pinning Pinning::choose() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0)
    throw std::runtime_error(std::string("sched_getaffinity: ") + std::strerror(errno));
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  if (cores.size() < 2) {
    throw std::runtime_error(
        "this process may use one core only, and client and server need one each: allow it two (taskset)");
  }
  return {cores.front(), {cores.begin() + 1, cores.end()}};
}

std::string Pinning::text() const {
  std::string last = std::to_string(servers.front());
  if (servers.size() > 1) last += " to " + std::to_string(servers.back());
  return "client on core " + std::to_string(client) + ", worker and peers on core " + last;
}

void pin(const std::vector<int>& cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) CPU_SET(static_cast<std::size_t>(core), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0)
    throw std::runtime_error(std::string("sched_setaffinity: ") + std::strerror(errno));
}

OnCore::OnCore(int core) {
  CPU_ZERO(&before_);
  if (sched_getaffinity(0, sizeof before_, &before_) != 0)
    throw std::runtime_error(std::string("sched_getaffinity: ") + std::strerror(errno));
  pin({core});
}

OnCore::~OnCore() {
  sched_setaffinity(0, sizeof before_, &before_);
}

}  // namespace sublet::bench
