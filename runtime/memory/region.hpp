#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/result.hpp"

namespace sublet::memory {

/// A page-aligned piece of memory that transports can register and share: an anonymous file
/// (memfd, sealed against shrinking and growing) mapped read-write. Pages are taken when touched and
/// vanish with the last process that maps them: a killed process leaves nothing behind.
class Region {
 public:
  Region() noexcept = default;
  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;
  ~Region();

  /// A region that fills eight of the system's huge pages or more lies on those, when so many are set aside
  /// and free (vm.nr_hugepages): a network card then keeps a five-hundredth of the translations.
  /// @param bytes Rounded up to whole pages; > 0.
  /// @retval Errc::out_of_memory, Errc::io_error with what to change.
  [[nodiscard]] static Result<Region> create(std::size_t bytes, const std::string& name);
  /// Maps a region that a peer sent. Refuses a file that is not sealed (it could shrink under us) or
  /// whose size is not `bytes`. Hostile input.
  [[nodiscard]] static Result<Region> open(FileDescriptor file, std::size_t bytes);

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] int descriptor() const noexcept { return file_.get(); }
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {data_, size_}; }
  [[nodiscard]] bool contains(const void* pointer, std::size_t bytes) const noexcept;

 private:
  /// Gives an empty file its size for good, and maps it.
  /// @param page What its pages have, in bytes.
  [[nodiscard]] static Result<Region> make(FileDescriptor file, std::size_t bytes, std::size_t page);

  FileDescriptor file_;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace sublet::memory
