#include "runtime/base/digest.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "runtime/base/assert.hpp"

namespace sublet {
namespace {

const unsigned char* raw(std::span<const std::byte> bytes) noexcept {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

int digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

Sha256 sha256(std::span<const std::byte> bytes) {
  Sha256 out{};
  unsigned int length = 0;
  const int done = EVP_Digest(raw(bytes), bytes.size(), reinterpret_cast<unsigned char*>(out.data()), &length,
                              EVP_sha256(), nullptr);
  SUBLET_ASSERT(done == 1 && length == out.size());
  return out;
}

Sha256 hmac_sha256(const SecretKey& key, std::span<const std::byte> bytes) {
  Sha256 out{};
  unsigned int length = 0;
  const unsigned char* done = HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), raw(bytes),
                                   bytes.size(), reinterpret_cast<unsigned char*>(out.data()), &length);
  SUBLET_ASSERT(done != nullptr && length == out.size());
  return out;
}

bool equal_constant_time(std::span<const std::byte> a, std::span<const std::byte> b) noexcept {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

void fill_random(std::span<std::byte> bytes) {
  const int done = RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  SUBLET_ASSERT(done == 1);
}

void preload_digests() {
  SecretKey key{};
  fill_random(key);
  [[maybe_unused]] const Sha256 signed_once = hmac_sha256(key, key);
}

std::string to_hex(std::span<const std::byte> bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const std::byte byte : bytes) {
    text += digits[std::to_integer<unsigned>(byte) >> 4U];
    text += digits[std::to_integer<unsigned>(byte) & 15U];
  }
  return text;
}

Status from_hex(std::string_view text, std::span<std::byte> out) {
  if (text.size() != out.size() * 2) {
    return Error(Errc::invalid_argument, "expected " + std::to_string(out.size() * 2) +
                                             " hexadecimal digits, got " + std::to_string(text.size()));
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    const int high = digit(text[2 * i]);
    const int low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return Error(Errc::invalid_argument, "expected hexadecimal digits");
    out[i] = static_cast<std::byte>(high * 16 + low);
  }
  return {};
}

}  // namespace sublet
