// What client and worker say before the first call and when it ends.

#include "runtime/wire/handshake.hpp"
#include "runtime/wire/request.hpp"
#include "runtime/wire/word.hpp"
#include "tests/fuzz/input.hpp"

using namespace sublet;

namespace {

void try_layout(const wire::Hello& hello, std::size_t region_bytes) {
  const Result<wire::Layout> layout = wire::layout_of(hello, region_bytes);
  if (!layout) return;
  SUBLET_ASSERT(layout->slots > 0 && layout->slots <= limits::slots_max);
  SUBLET_ASSERT(layout->slot_bytes > wire::payload_offset);
  SUBLET_ASSERT(layout->slot_offset(layout->slots) <= layout->large_offset);
  SUBLET_ASSERT(layout->large_offset <= region_bytes &&
                layout->large_bytes <= region_bytes - layout->large_offset);
}

void try_token(std::string_view text) {
  const Result<wire::SignedToken> token = wire::parse_token(text);
  if (!token) return;
  const Result<wire::SignedToken> again = wire::parse_token(wire::to_text(*token));
  SUBLET_ASSERT(again.ok() && again->token == token->token && again->mac == token->mac);
  const SecretKey key{};
  SUBLET_ASSERT(!wire::verify(*token, key) || wire::sign(token->token, key) == token->mac);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto kind = input.number();
  const auto region_bytes = static_cast<std::size_t>(input.number<std::uint64_t>());
  const std::string_view text = input.rest();
  const auto bytes = fuzz::as_bytes(text);
  switch (kind % 5) {
    case 0:
      if (const Result<wire::Hello> hello = wire::parse_hello(bytes); hello) try_layout(*hello, region_bytes);
      break;
    case 1:
      if (const auto hello = wire::read_as<wire::Hello>(bytes); hello) try_layout(*hello, region_bytes);
      break;
    case 2:
      SUBLET_ASSERT(wire::parse_refusal(bytes).detail().size() <= 1024);
      break;
    case 3:
      static_cast<void>(wire::parse_welcome(bytes));
      static_cast<void>(wire::read_as<wire::LastWords>(bytes));
      if (const auto word = wire::read_as<std::uint32_t>(bytes); word) {
        SUBLET_ASSERT(wire::Word::unpack(*word).pack() == *word);
        SUBLET_ASSERT(wire::Word::unpack(*word).slot < limits::slots_max);
      }
      break;
    default:
      try_token(text);
      break;
  }
  return 0;
}
