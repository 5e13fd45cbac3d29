#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "benchmarks/baselines/verbs_addresses.hpp"
#include "benchmarks/frame/report.hpp"
#include "benchmarks/frame/side.hpp"

namespace sublet::bench {

/// A way to bring bytes to another process and back that has nothing of ours around it. Made in two steps:
/// the constructor forks the peer; open() loads libraries and connects.
class Baseline : public Side {
 public:
  /// Blocks. Throws std::runtime_error with what is missing.
  virtual void open() = 0;
  /// Rounds that gave no figure and were run again.
  [[nodiscard]] virtual std::uint32_t repeated() const { return 0; }
};

/// What all need: where the peer runs, and the largest message and window of any round.
struct BaselineShape {
  std::vector<int> cores;
  std::size_t bytes_max = 0;
  std::uint32_t window_max = 1;
};

/// n bytes over a TCP connection on loopback.
[[nodiscard]] std::unique_ptr<Baseline> make_tcp_socket(const BaselineShape& shape);
/// n bytes over a unix socket.
[[nodiscard]] std::unique_ptr<Baseline> make_unix_socket(const BaselineShape& shape);
/// A frame of 32 bytes that says the length, then n bytes, over a TCP connection on loopback.
[[nodiscard]] std::unique_ptr<Baseline> make_framed_socket(const BaselineShape& shape);
/// n bytes copied into memory that both share, and a word that tells of them.
[[nodiscard]] std::unique_ptr<Baseline> make_shared_memory(const BaselineShape& shape);

/// libfabric's tcp provider, connected endpoints, write-with-data both ways. With a descriptor its ends can
/// sleep; that costs system calls at each arrival, slept or not.
[[nodiscard]] std::unique_ptr<Baseline> make_fabric_tcp(const BaselineShape& shape, bool descriptor);
/// libfabric's shm provider, unconnected endpoints (it has no others), write-with-data both ways.
[[nodiscard]] std::unique_ptr<Baseline> make_fabric_shm(const BaselineShape& shape);

/// Bare verbs: a reliable connected queue pair, write with immediate both ways; with events its ends can
/// sleep on a completion channel.
[[nodiscard]] std::unique_ptr<Baseline> make_verbs(const BaselineShape& shape,
                                                   const VerbsAddresses& addresses, bool sleeps);
/// perftest's ib_write_lat, twice its typical time; or ib_write_bw, both ways at once.
[[nodiscard]] std::unique_ptr<Baseline> make_perftest(const BaselineShape& shape,
                                                      const VerbsAddresses& addresses, bool bandwidth);

/// Opens all; those that cannot run here are left out of `all`, and the report says why. Throws when
/// none can.
void open_all(std::vector<std::unique_ptr<Baseline>>& all, Report& report);
/// Says which baselines had to repeat rounds.
void print_repeated(const std::vector<std::unique_ptr<Baseline>>& all);

}  // namespace sublet::bench
