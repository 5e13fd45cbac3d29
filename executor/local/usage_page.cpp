#include "executor/local/usage_page.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace sublet::local {
namespace {

Error failed(const std::string& what, const char* advice) {
  return {Errc::io_error, what + ": " + std::strerror(errno) + "; " + advice};
}

struct flock whole_file(short type) noexcept {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

}  // namespace

Result<FileDescriptor> create_usage_file(const std::string& path) {
  FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file.valid()) return failed("cannot make " + path, "may the agent write there, and more open files?");
  std::array<std::byte, usage_page_bytes> page{};
  const UsageRecord fresh;
  std::memcpy(page.data(), &fresh, sizeof(fresh));
  const ssize_t written = ::pwrite(file.get(), page.data(), page.size(), 0);
  if (written == static_cast<ssize_t>(page.size())) return file;
  const Error error = failed("cannot write " + path, "free space in the state directory");
  ::unlink(path.c_str());
  return error;
}

Result<UsageRecord> read_usage(int file) {
  UsageRecord record;
  const ssize_t got = ::pread(file, &record, sizeof(record), 0);
  if (got != static_cast<ssize_t>(sizeof(record)) || record.magic != UsageRecord::magic_value)
    return Error(Errc::protocol_error, "the file is no usage page");
  return record;
}

bool usage_is_held(int file) noexcept {
  struct flock lock = whole_file(F_WRLCK);
  return ::fcntl(file, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

UsagePage::UsagePage(UsagePage&& other) noexcept
    : file_(std::move(other.file_)), record_(std::exchange(other.record_, nullptr)) {}

UsagePage& UsagePage::operator=(UsagePage&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(record_, other.record_);
  return *this;
}

UsagePage::~UsagePage() {
  if (record_ != nullptr) ::munmap(record_, usage_page_bytes);
}

Result<UsagePage> UsagePage::map(FileDescriptor file) {
  // A lock of this process: it ends with it, whoever else has the descriptor.
  struct flock lock = whole_file(F_WRLCK);
  if (::fcntl(file.get(), F_SETLK, &lock) != 0) return failed("lock of the usage page", "restart the agent");
  void* address =
      ::mmap(nullptr, usage_page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file.get(), 0);
  if (address == MAP_FAILED) return failed("mmap of the usage page", "raise the limit on mappings");
  UsagePage page;
  page.file_ = std::move(file);
  page.record_ = static_cast<UsageRecord*>(address);
  return page;
}

}  // namespace sublet::local
