#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "runtime/memory/arena.hpp"
#include "tests/catch.hpp"

using namespace sublet;
using memory::Arena;
using memory::Region;

TEST_CASE("an arena gives aligned blocks inside its memory until it is used up, and says so") {
  const Region region = Region::create(4096, "arena").value();
  Arena arena(region);
  std::vector<std::span<std::byte>> blocks;
  for (int i = 0; i < 64; ++i) {
    blocks.push_back(arena.allocate(static_cast<std::size_t>(i) + 1).value());
    REQUIRE(blocks.back().size() == static_cast<std::size_t>(i) + 1);
    REQUIRE(reinterpret_cast<std::uintptr_t>(blocks.back().data()) % Arena::alignment == 0);
    REQUIRE(region.contains(blocks.back().data(), Arena::alignment));
  }
  REQUIRE(arena.free_bytes() == 0);
  REQUIRE(arena.allocate(0).error().code() == Errc::out_of_memory);
  for (const auto block : blocks) REQUIRE(arena.free(block.data()).ok());
  REQUIRE(arena.largest_free_bytes() == region.size());
}

TEST_CASE("an arena refuses what it cannot give and what it did not give") {
  const Region region = Region::create(4096, "arena").value();
  Arena arena(region);
  for (const std::size_t bytes : {std::size_t{4097}, SIZE_MAX, SIZE_MAX - 63}) {
    REQUIRE(arena.allocate(bytes).error().code() == Errc::out_of_memory);
  }
  const auto block = arena.allocate(100).value();
  REQUIRE(arena.free(block.data() + 64).error().code() == Errc::invalid_argument);
  REQUIRE(arena.free(region.data() - 64).error().code() == Errc::invalid_argument);
  REQUIRE(arena.free(nullptr).error().code() == Errc::invalid_argument);
  REQUIRE(arena.free(block.data()).ok());
  REQUIRE(arena.free(block.data()).error().code() == Errc::invalid_argument);
  REQUIRE(arena.blocks() == 0);
  REQUIRE(arena.allocate(4096).ok());
  REQUIRE_FALSE(Arena(std::span<std::byte>()).allocate(1).ok());
}

TEST_CASE("an empty block has an address of its own") {
  const Region region = Region::create(4096, "arena").value();
  Arena arena(region);
  const auto first = arena.allocate(0).value();
  const auto second = arena.allocate(0).value();
  REQUIRE(first.empty());
  REQUIRE(first.data() != second.data());
}

TEST_CASE("blocks never overlap and all memory comes back, whatever the order") {
  const Region region = Region::create(std::size_t{1} << 20, "arena").value();
  Arena arena(region);
  std::mt19937 random(7);
  struct Block {
    std::span<std::byte> bytes;
    std::byte pattern;
  };
  std::vector<Block> blocks;
  for (int step = 0; step < 20'000; ++step) {
    if (blocks.empty() || random() % 5 < 3) {
      const std::size_t bytes = random() % 8 == 0 ? random() % 65536 : random() % 512;
      auto block = arena.allocate(bytes);
      if (!block) {
        REQUIRE(arena.largest_free_bytes() < bytes + Arena::alignment);
        continue;
      }
      const auto pattern = static_cast<std::byte>(random());
      std::ranges::fill(*block, pattern);
      blocks.push_back({*block, pattern});
    } else {
      const std::size_t index = random() % blocks.size();
      const Block block = blocks[index];
      blocks[index] = blocks.back();
      blocks.pop_back();
      REQUIRE(std::ranges::all_of(block.bytes, [&](std::byte byte) { return byte == block.pattern; }));
      REQUIRE(arena.free(block.bytes.data()).ok());
    }
  }
  for (const Block& block : blocks) REQUIRE(arena.free(block.bytes.data()).ok());
  REQUIRE(arena.blocks() == 0);
  REQUIRE(arena.free_bytes() == region.size());
  REQUIRE(arena.largest_free_bytes() == region.size());
}
