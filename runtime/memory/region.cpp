#include "runtime/memory/region.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>

namespace sublet::memory {
namespace {

constexpr int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
/// A region takes huge pages when it fills so many: rounding up then costs an eighth at most.
constexpr std::size_t huge_pages_min = 8;

Error failed(const char* call, const char* advice) {
  const int number = errno;
  const Errc code = number == ENOMEM || number == ENOSPC ? Errc::out_of_memory : Errc::io_error;
  return {code, std::string(call) + ": " + std::strerror(number) + "; " + advice};
}

Result<std::byte*> map(int file, std::size_t bytes) {
  void* address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (address == MAP_FAILED) return failed("mmap", "ask for a smaller region or raise the memory limit");
  return static_cast<std::byte*>(address);
}

/// What a file on huge pages counts in; 0 when the region is too small for them or the kernel has none.
std::size_t huge_page_of(int file, std::size_t bytes) {
  struct stat status {};
  if (file < 0 || ::fstat(file, &status) != 0) return 0;
  const auto page = static_cast<std::size_t>(status.st_blksize);
  return bytes / page >= huge_pages_min ? page : 0;
}

}  // namespace

Region::Region(Region&& other) noexcept
    : file_(std::move(other.file_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

Region& Region::operator=(Region&& other) noexcept {
  if (this != &other) {
    if (data_ != nullptr) ::munmap(data_, size_);
    file_ = std::move(other.file_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

Region::~Region() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

Result<Region> Region::make(FileDescriptor file, std::size_t bytes, std::size_t page) {
  Region region;
  region.size_ = (bytes + page - 1) / page * page;
  if (::ftruncate(file.get(), static_cast<off_t>(region.size_)) != 0) {
    return failed("ftruncate", "ask for a smaller region");
  }
  if (::fcntl(file.get(), F_ADD_SEALS, seals) != 0) {
    return failed("fcntl(F_ADD_SEALS)", "the kernel must support memfd seals");
  }
  Result<std::byte*> data = map(file.get(), region.size_);
  if (!data) return data.error();
  region.file_ = std::move(file);
  region.data_ = *data;
  return region;
}

Result<Region> Region::create(std::size_t bytes, const std::string& name) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  if (bytes == 0 || bytes > static_cast<std::size_t>(std::numeric_limits<off_t>::max()) - page) {
    return Error(Errc::invalid_argument, "a region of " + std::to_string(bytes) + " bytes is not possible");
  }
  // Huge pages are reserved when they are mapped: all of the region lies on them, or none.
  FileDescriptor huge(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB));
  if (const std::size_t huge_page = huge_page_of(huge.get(), bytes); huge_page > 0) {
    if (Result<Region> made = make(std::move(huge), bytes, huge_page)) return made;
  }
  FileDescriptor file(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.valid()) return failed("memfd_create", "raise the limit of open files");
  return make(std::move(file), bytes, page);
}

Result<Region> Region::open(FileDescriptor file, std::size_t bytes) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return failed("fstat", "the peer sent no file");
  const int sealed = ::fcntl(file.get(), F_GET_SEALS);
  if (sealed < 0 || (sealed & F_SEAL_SHRINK) == 0) {
    return Error(Errc::protocol_error, "the peer's region is not sealed against shrinking");
  }
  if (bytes == 0 || status.st_size < 0 || static_cast<std::size_t>(status.st_size) != bytes) {
    return Error(Errc::protocol_error, "the peer's region has " + std::to_string(status.st_size) +
                                           " bytes, announced were " + std::to_string(bytes));
  }
  Region region;
  region.size_ = bytes;
  region.file_ = std::move(file);
  Result<std::byte*> data = map(region.file_.get(), bytes);
  if (!data) return data.error();
  region.data_ = *data;
  return region;
}

bool Region::contains(const void* pointer, std::size_t bytes) const noexcept {
  const std::less<const std::byte*> before;
  const auto* begin = static_cast<const std::byte*>(pointer);
  if (data_ == nullptr || before(begin, data_) || before(data_ + size_, begin)) return false;
  return bytes <= static_cast<std::size_t>(data_ + size_ - begin);
}

}  // namespace sublet::memory
