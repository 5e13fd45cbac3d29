#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

namespace sublet::control {

/// What a peer has sent and nobody has taken yet. Small while there is little, so that thousands of idle
/// connections cost little; up to `bytes_max` while a request needs it.
class HttpInbox {
 public:
  explicit HttpInbox(std::size_t bytes_max) noexcept : bytes_max_(std::max(bytes_max, small_bytes)) {}

  /// Where the next bytes go; empty when all is full. Valid until the next call of room() or shrink().
  /// @param much Room for as much as there may be, because much is to come.
  [[nodiscard]] std::span<char> room(bool much) {
    if (begin_ > 0) {
      std::memmove(base(), base() + begin_, end_ - begin_);
      end_ -= std::exchange(begin_, 0);
    }
    if ((much || end_ == small_.size()) && !large_) {
      large_ = std::make_unique_for_overwrite<char[]>(bytes_max_);
      std::memcpy(large_.get(), small_.data(), end_);
    }
    return {base() + end_, capacity() - end_};
  }
  void commit(std::size_t bytes) noexcept { end_ += bytes; }

  [[nodiscard]] std::string_view bytes() const noexcept {
    return {(large_ ? large_.get() : small_.data()) + begin_, end_ - begin_};
  }
  void consume(std::size_t bytes) noexcept {
    begin_ += bytes;
    if (begin_ == end_) begin_ = end_ = 0;
  }
  [[nodiscard]] bool empty() const noexcept { return begin_ == end_; }
  /// No byte more fits before some are consumed.
  [[nodiscard]] bool full() const noexcept { return begin_ == 0 && end_ == bytes_max_; }
  /// Gives memory back; only while empty.
  void shrink() noexcept { large_.reset(); }

 private:
  static constexpr std::size_t small_bytes = 1024;

  [[nodiscard]] char* base() noexcept { return large_ ? large_.get() : small_.data(); }
  [[nodiscard]] std::size_t capacity() const noexcept { return large_ ? bytes_max_ : small_.size(); }

  std::size_t bytes_max_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::unique_ptr<char[]> large_;
  std::array<char, small_bytes> small_;
};

}  // namespace sublet::control
