#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>

#include "runtime/lease/lease_table.hpp"

namespace sublet::manager {

/// What /metrics tells, in Prometheus' text format. No names of peers: the number of lines is bounded.
class Metrics {
 public:
  /// A pattern and a method of our own routes, or "" for a request that fits none.
  void count_request(const std::string& method, const std::string& route, unsigned status);
  void count_refusal(Errc code) { ++refusals_[std::string(name(code))]; }
  void time_grant(std::chrono::microseconds took);
  /// One transaction, from its begin to its end on the disk.
  void count_write(std::chrono::microseconds took, bool written);

  /// One look at what Slurm wants.
  void count_slurm_look(bool seen) { ++(seen ? slurm_looks_ : slurm_looks_failed_); }

  /// @param slurm_age Of what Slurm last said; nothing: it said nothing that holds.
  [[nodiscard]] std::string text(const lease::LeaseTable& table, std::size_t waiting, std::size_t functions,
                                 bool writable, std::optional<std::chrono::milliseconds> slurm_age) const;

 private:
  void slurm(std::string& out, const lease::LeaseTable& table,
             std::optional<std::chrono::milliseconds> slurm_age) const;

  // Upper bounds in microseconds; a last bucket has the rest.
  static constexpr std::array<std::uint64_t, 9> bounds_us{50,     100,     250,       1000,      5000,
                                                          25'000, 100'000, 1'000'000, 10'000'000};

  std::map<std::tuple<std::string, std::string, unsigned>, std::uint64_t> requests_;
  std::map<std::string, std::uint64_t> refusals_;
  std::array<std::uint64_t, bounds_us.size() + 1> grants_{};
  std::uint64_t grants_us_ = 0;
  std::uint64_t writes_ = 0;
  std::uint64_t writes_us_ = 0;
  std::uint64_t writes_failed_ = 0;
  std::uint64_t slurm_looks_ = 0;
  std::uint64_t slurm_looks_failed_ = 0;
};

}  // namespace sublet::manager
