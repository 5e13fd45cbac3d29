#include "runtime/wire/handshake.hpp"

#include <algorithm>

namespace sublet::wire {
namespace {

Status check_front(std::uint32_t peer_magic, std::uint16_t peer_version) {
  if (peer_magic != magic)
    return Error(Errc::protocol_error, "foreign magic: the peer is not a Sublet program");
  if (peer_version != version) {
    return Error(Errc::version_mismatch, "the peer speaks protocol version " + std::to_string(peer_version) +
                                             ", this side " + std::to_string(version) +
                                             "; update the older side");
  }
  return {};
}

}  // namespace

SecretKey worker_key(const SecretKey& node_key, std::uint32_t worker) {
  return hmac_sha256(node_key, bytes_of(worker));
}

Mac sign(const Token& token, const SecretKey& node_key) {
  const Sha256 full = hmac_sha256(worker_key(node_key, token.worker), bytes_of(token));
  Mac mac;
  std::copy_n(full.begin(), mac.size(), mac.begin());
  return mac;
}

bool verify(const SignedToken& token, const SecretKey& key) {
  const Sha256 full = hmac_sha256(key, bytes_of(token.token));
  return equal_constant_time(std::span(full).first(token.mac.size()), token.mac);
}

std::string to_text(const SignedToken& token) {
  return to_hex(bytes_of(token));
}

Result<SignedToken> parse_token(std::string_view text) {
  SignedToken token;
  if (Status parsed = from_hex(text, std::as_writable_bytes(std::span(&token, 1))); !parsed)
    return parsed.error();
  return token;
}

Refusal refuse(const Error& error) noexcept {
  Refusal refusal;
  refusal.code = static_cast<std::uint16_t>(error.code());
  const std::string_view text =
      error.detail().empty() ? explain(error.code()) : std::string_view(error.detail());
  refusal.text_bytes = static_cast<std::uint16_t>(std::min(text.size(), refusal.text.size()));
  std::copy_n(text.begin(), refusal.text_bytes, refusal.text.begin());
  return refusal;
}

Error parse_refusal(std::span<const std::byte> bytes) {
  const auto refusal = read_as<Refusal>(bytes);
  if (!refusal || refusal->magic != magic || refusal->text_bytes > refusal->text.size()) {
    return {Errc::protocol_error, "the peer refused the connection without a reason of ours"};
  }
  const Errc code = static_cast<Errc>(refusal->code);
  return {code, std::string(refusal->text.data(), refusal->text_bytes)};
}

Result<Layout> layout_of(const Hello& hello, std::size_t region_bytes) {
  if (hello.slots_log2 > limits::slots_log2_max || hello.slot_bytes_log2 < limits::slot_bytes_log2_min ||
      hello.slot_bytes_log2 > limits::slot_bytes_log2_max) {
    return Error(Errc::invalid_argument, "slots or slot size out of range");
  }
  Layout layout;
  layout.slots = 1U << hello.slots_log2;
  layout.slot_bytes = std::size_t{1} << hello.slot_bytes_log2;
  layout.large_offset = control_bytes + layout.slots * layout.slot_bytes;
  if (layout.large_offset > region_bytes) {
    return Error(Errc::too_large, "slots of " + std::to_string(layout.large_offset) +
                                      " bytes exceed the worker's region of " + std::to_string(region_bytes) +
                                      "; ask for fewer or smaller slots");
  }
  layout.large_bytes = region_bytes - layout.large_offset;
  return layout;
}

Result<Hello> parse_hello(std::span<const std::byte> bytes) {
  const auto hello = read_as<Hello>(bytes);
  if (!hello)
    return Error(Errc::protocol_error, "a hello of " + std::to_string(bytes.size()) + " bytes is too short");
  if (Status front = check_front(hello->magic, hello->version); !front) return front.error();
  return *hello;
}

Result<Welcome> parse_welcome(std::span<const std::byte> bytes) {
  const auto welcome = read_as<Welcome>(bytes);
  if (!welcome) return Error(Errc::protocol_error, "the worker's welcome is too short");
  if (Status front = check_front(welcome->magic, welcome->version); !front) return front.error();
  return *welcome;
}

}  // namespace sublet::wire
