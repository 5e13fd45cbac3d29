#include "runtime/wire/handshake.hpp"
#include "runtime/wire/request.hpp"
#include "runtime/wire/word.hpp"
#include "tests/catch.hpp"

using namespace sublet;

TEST_CASE("a word survives packing at its extremes") {
  for (const wire::Word word : {wire::Word{1, 0, 0}, wire::Word{15, 4095, 65535}, wire::Word{7, 2048, 1}}) {
    REQUIRE(wire::Word::unpack(word.pack()) == word);
  }
  REQUIRE(wire::Word{1, 2, 3}.pack() == 0x10020003U);
}

TEST_CASE("a signed token verifies under its worker's key alone and unchanged alone") {
  SecretKey node_key{};
  fill_random(node_key);
  const SecretKey key = wire::worker_key(node_key, 3);
  wire::SignedToken token{
      {.lease = 7, .expiry_ms = 123456, .worker = 3, .tenant = 1, .function = 2, .cores = 1}, {}};
  token.mac = wire::sign(token.token, node_key);
  REQUIRE(wire::verify(token, key));
  REQUIRE_FALSE(wire::verify(token, wire::worker_key(node_key, 4)));
  REQUIRE_FALSE(wire::verify(token, node_key));

  const std::string text = wire::to_text(token);
  REQUIRE(text.size() == 96);
  REQUIRE(wire::verify(wire::parse_token(text).value(), key));
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::string changed = text;
    changed[i] = changed[i] == '0' ? '1' : '0';
    REQUIRE_FALSE(wire::verify(wire::parse_token(changed).value(), key));
  }
  REQUIRE(wire::parse_token("12").error().code() == Errc::invalid_argument);
  REQUIRE(wire::parse_token(std::string(96, 'g')).error().code() == Errc::invalid_argument);
}

TEST_CASE("a hello is checked before it is believed") {
  wire::Hello hello{.slots_log2 = 6, .slot_bytes_log2 = 12};
  REQUIRE(wire::parse_hello(wire::bytes_of(hello)).ok());
  REQUIRE(wire::parse_hello(wire::bytes_of(hello).first(55)).error().code() == Errc::protocol_error);
  hello.magic ^= 1;
  REQUIRE(wire::parse_hello(wire::bytes_of(hello)).error().code() == Errc::protocol_error);
  hello.magic = wire::magic;
  hello.version = 2;
  REQUIRE(wire::parse_hello(wire::bytes_of(hello)).error().code() == Errc::version_mismatch);
}

TEST_CASE("a layout must fit the region") {
  const std::size_t region = std::size_t{1} << 20;
  const wire::Layout layout = wire::layout_of({.slots_log2 = 4, .slot_bytes_log2 = 12}, region).value();
  REQUIRE(layout.slots == 16);
  REQUIRE(layout.slot_offset(0) == wire::control_bytes);
  REQUIRE(layout.large_offset == wire::control_bytes + 16 * 4096);
  REQUIRE(layout.large_offset + layout.large_bytes == region);
  REQUIRE(wire::layout_of({.slots_log2 = 12, .slot_bytes_log2 = 26}, region).error().code() ==
          Errc::too_large);
  REQUIRE(wire::layout_of({.slots_log2 = 13, .slot_bytes_log2 = 12}, region).error().code() ==
          Errc::invalid_argument);
  REQUIRE(wire::layout_of({.slots_log2 = 1, .slot_bytes_log2 = 7}, region).error().code() ==
          Errc::invalid_argument);
}

TEST_CASE("a refusal carries code and text, cut to its room, and garbage is told") {
  const Error error =
      wire::parse_refusal(wire::bytes_of(wire::refuse(Error(Errc::lease_expired, std::string(500, 'x')))));
  REQUIRE(error.code() == Errc::lease_expired);
  REQUIRE(error.detail() == std::string(128, 'x'));
  REQUIRE(wire::parse_refusal({}).code() == Errc::protocol_error);
  wire::Refusal lying = wire::refuse(Error(Errc::busy, "x"));
  lying.text_bytes = 60000;
  REQUIRE(wire::parse_refusal(wire::bytes_of(lying)).code() == Errc::protocol_error);
}
