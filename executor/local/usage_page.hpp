#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/result.hpp"

/// What one worker process counts, in a page of a file that it shares with its agent: what was counted
/// survives the worker, and the agent, when they are killed. Whose page it is stands in the file's name,
/// which the agent alone writes: in the page itself lies only what a tenant's code could write as well.
namespace sublet::local {

struct UsageRecord {
  static constexpr std::uint64_t magic_value = 0x3147'5355'5442'4C53;  // "SLBTUSG1"
  std::uint64_t magic = magic_value;
  // A reader that copies upwards sees no call returned that it does not see started.
  std::uint64_t calls = 0;
  std::uint64_t execution_ns = 0;
  std::uint64_t hot_ns = 0;
  std::uint64_t calls_started = 0;
};
static_assert(sizeof(UsageRecord) == 40 && std::is_trivially_copyable_v<UsageRecord>);
static_assert(offsetof(UsageRecord, calls) == 8 && offsetof(UsageRecord, calls_started) == 32);
static_assert(std::atomic_ref<std::uint64_t>::is_always_lock_free);

inline constexpr std::size_t usage_page_bytes = 4096;

/// Makes the file, filled so that a full disk is told here and not by a signal at the first count.
/// @retval Errc::io_error with the path and what to do.
[[nodiscard]] Result<FileDescriptor> create_usage_file(const std::string& path);

/// The record as it is now; protocol_error when it is none: too short, foreign. Never maps the file, which
/// the worker's code could cut. Hostile input: the numbers are whatever was written there.
[[nodiscard]] Result<UsageRecord> read_usage(int file);

/// True while a worker process has the file mapped by UsagePage. Any process of the machine may ask.
[[nodiscard]] bool usage_is_held(int file) noexcept;

/// A worker's mapping of its own page; held (see usage_is_held) until the process ends or this does.
class UsagePage {
 public:
  UsagePage() noexcept = default;
  UsagePage(UsagePage&& other) noexcept;
  UsagePage& operator=(UsagePage&& other) noexcept;
  ~UsagePage();

  /// @retval Errc::io_error when the file cannot be mapped or another process holds it.
  [[nodiscard]] static Result<UsagePage> map(FileDescriptor file);
  /// Only of one that map() has made.
  [[nodiscard]] UsageRecord& record() const noexcept { return *record_; }

 private:
  FileDescriptor file_;
  UsageRecord* record_ = nullptr;
};

}  // namespace sublet::local
