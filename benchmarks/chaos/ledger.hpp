#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

/// What becomes of each call in the chaos test: a file that a client, the workers that run its calls and
/// the judge map at once. What was written into it outlives kill -9 of any of them.
namespace sublet::bench::chaos {

/// Of one client process; it ends when it has made so many.
inline constexpr std::uint64_t calls_max = std::uint64_t{1} << 19;

enum class Outcome : std::uint8_t {
  unused,
  begun,    ///< Handed to submit(); no final status yet.
  refused,  ///< submit() said so: nothing was sent.
  ok,
  function_failed,
  not_started,
  worker_lost,
  deadline_exceeded,
  cancelled,
  lease_ended,  ///< lease_expired, lease_revoked or closed.
  wrong,        ///< Another error, or an output that is not the call's.
};

enum class Kind : std::uint8_t { idempotent, once };

struct Entry {
  std::atomic<std::uint64_t> lease{0};     ///< Written by the function.
  std::atomic<std::uint32_t> started{0};   ///< Times that the function began with it.
  std::atomic<std::uint32_t> finished{0};  ///< Times that it came to the function's end.
  std::atomic<Kind> kind{Kind::idempotent};
  std::atomic<Outcome> outcome{Outcome::unused};
  std::atomic<std::uint16_t> error{0};  ///< Errc of a wrong one; 0: the output is.
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "a killed process must leave no lock behind");

/// A call's input.
struct Order {
  std::uint64_t call = 0;
  std::uint64_t lease = 0;
  std::uint32_t busy_us = 0;  ///< Computing so long.
  std::uint32_t idle_us = 0;  ///< Then asleep so long.
  char ledger[240] = {};      ///< Path, zero-terminated.
};

/// The entries of one file. Thread safety: the entries are atomic.
class Ledger {
 public:
  /// Throws std::runtime_error.
  explicit Ledger(const std::string& path, bool create = false) : path_(path) {
    const int file = open(path.c_str(), O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
    if (file < 0) throw std::runtime_error(path + ": " + std::strerror(errno));
    const bool sized = !create || ftruncate(file, bytes) == 0;
    void* const at = sized ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
    close(file);
    if (at == MAP_FAILED) throw std::runtime_error(path + ": it cannot be mapped: " + std::strerror(errno));
    entries_ = static_cast<Entry*>(at);
  }
  Ledger(Ledger&& other) noexcept
      : path_(std::move(other.path_)), entries_(std::exchange(other.entries_, nullptr)) {}
  Ledger& operator=(Ledger&&) = delete;
  ~Ledger() {
    if (entries_ != nullptr) munmap(entries_, bytes);
  }

  [[nodiscard]] Entry& operator[](std::uint64_t call) const { return entries_[call % calls_max]; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  static constexpr std::size_t bytes = calls_max * sizeof(Entry);

  std::string path_;
  Entry* entries_ = nullptr;
};

}  // namespace sublet::bench::chaos
