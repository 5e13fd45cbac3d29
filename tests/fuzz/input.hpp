#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "runtime/base/assert.hpp"

namespace sublet::fuzz {

/// The bytes that the fuzzer chose, taken from the front. Past the end everything is 0 and empty.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) noexcept
      : bytes_(reinterpret_cast<const char*>(data), size) {}

  [[nodiscard]] bool empty() const noexcept { return bytes_.empty(); }
  template <typename T = std::uint8_t>
  [[nodiscard]] T number() noexcept {
    T value{};
    const std::string_view taken = take(sizeof(T));
    std::memcpy(&value, taken.data(), taken.size());
    return value;
  }
  [[nodiscard]] std::string_view take(std::size_t most) noexcept {
    const std::string_view taken = bytes_.substr(0, most);
    bytes_.remove_prefix(taken.size());
    return taken;
  }
  [[nodiscard]] std::string_view rest() noexcept { return take(bytes_.size()); }

 private:
  std::string_view bytes_;
};

[[nodiscard]] inline std::span<const std::byte> as_bytes(std::string_view text) noexcept {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace sublet::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
