#pragma once

#include <cstdint>
#include <string>

namespace sublet::bench::chaos {

struct ClientOptions {
  std::string manager;  ///< URL.
  std::string ledger;   ///< Path.
  std::string tenant;
  std::string transport;  ///< "shm" or "tcp".
  std::uint64_t seed = 0;
};

/// One client, a process of its own: leases workers, calls, writes each call's end into its ledger, and
/// begins again whatever happens, until SIGTERM. Throws std::exception.
void run_client(const ClientOptions& options);

}  // namespace sublet::bench::chaos
