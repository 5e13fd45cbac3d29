#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "runtime/base/result.hpp"

namespace sublet {

using Sha256 = std::array<std::byte, 32>;
using SecretKey = std::array<std::byte, 32>;  ///< Never logged, never on a command line.

[[nodiscard]] Sha256 sha256(std::span<const std::byte> bytes);
/// HMAC-SHA-256 (RFC 2104).
[[nodiscard]] Sha256 hmac_sha256(const SecretKey& key, std::span<const std::byte> bytes);
/// Compares in a time that does not depend on the contents.
[[nodiscard]] bool equal_constant_time(std::span<const std::byte> a, std::span<const std::byte> b) noexcept;
/// Cryptographic randomness; aborts when the operating system has none.
void fill_random(std::span<std::byte> bytes);
/// Lets OpenSSL read its configuration and find its algorithms, about 1.5 ms, which the process's children
/// then need not. Their randomness is their own: OpenSSL seeds again after a fork.
void preload_digests();

[[nodiscard]] std::string to_hex(std::span<const std::byte> bytes);
/// Fills `out` from exactly 2 * out.size() hexadecimal digits; invalid_argument otherwise.
[[nodiscard]] Status from_hex(std::string_view text, std::span<std::byte> out);

}  // namespace sublet
