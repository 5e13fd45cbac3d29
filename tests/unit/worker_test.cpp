#include <array>
#include <cstring>
#include <deque>
#include <random>
#include <string>

#include "executor/worker/module.hpp"
#include "executor/worker/output_buffers.hpp"
#include "runtime/base/hot_window.hpp"
#include "tests/catch.hpp"

using namespace sublet;
using worker::Module;
using worker::OutputBuffers;

namespace {

std::string module_path(const std::string& name) {
  return std::string(SUBLET_TEST_MODULES) + "/" + name + ".so";
}

struct Called {
  bool ok = false;
  std::string output;
  std::string message;
};

Called call(const Module& module, std::uint32_t entry, std::string_view input) {
  std::array<char, 64> output{};
  std::array<char, 256> message{};
  sublet_call call{};
  call.size_bytes = sizeof(call);
  call.entry = entry;
  call.input = input.data();
  call.input_bytes = input.size();
  call.output = output.data();
  call.output_capacity = output.size();
  call.message = message.data();
  call.message_capacity = message.size();
  const bool ok = module.call(call);
  const auto* const result = static_cast<const char*>(call.output);
  return {ok, ok ? std::string(result, call.output_bytes) : std::string(), message.data()};
}

}  // namespace

TEST_CASE("a module runs, fails with its message, and what it throws becomes a failure") {
  const Module module = Module::load(module_path("basic")).value();
  REQUIRE(module.entries() == 7);
  REQUIRE(call(module, 0, "hello").output == "hello");
  const Called failed = call(module, 1, "");
  REQUIRE_FALSE(failed.ok);
  REQUIRE(failed.message == "as asked");
  REQUIRE(call(module, 2, "").message == "thrown out of an entry");
  const Called boasted = call(module, 3, "");
  REQUIRE_FALSE(boasted.ok);
  REQUIRE(boasted.message.find("65") != std::string::npos);
  REQUIRE(call(module, 4, "").output == "warm");
}

TEST_CASE("a result in place lies in the input, and nowhere else") {
  const Module module = Module::load(module_path("basic")).value();
  REQUIRE(
      call(module, 5, std::string(100, 'x') + "abc").output.empty());  // More than the caller has room for.
  REQUIRE(call(module, 5, "abcde").output == "cde");
  const Called beyond = call(module, 6, "abcde");
  REQUIRE_FALSE(beyond.ok);
  REQUIRE(beyond.message.find("there was room for 0") != std::string::npos);
}

TEST_CASE("what is no function library is told apart, each with a text that helps") {
  REQUIRE(Module::load("/nowhere.so").error().code() == Errc::invalid_argument);
  REQUIRE(Module::load(module_path("no_module")).error().detail().find("sublet_module") != std::string::npos);
  REQUIRE(Module::load(module_path("other_abi")).error().detail().find("99") != std::string::npos);
  REQUIRE(Module::load(module_path("no_entries")).error().detail().find("no entries") != std::string::npos);
  const Result<Module> failed = Module::load(module_path("bad_init"));
  REQUIRE(failed.error().code() == Errc::function_failed);
  REQUIRE(failed.error().detail().find("no model here") != std::string::npos);
}

TEST_CASE("polling fades while it is in vain, and the first quick answer restores it") {
  using std::chrono::microseconds;
  HotWindow window{microseconds(200)};
  REQUIRE(window.now() == microseconds(200));
  window.waited(microseconds(1'600));  // Sleeping takes longer than answering: still worth it.
  REQUIRE(window.now() == microseconds(200));
  window.waited(microseconds(1'601));
  window.waited(microseconds(5'000));
  REQUIRE(window.now() == microseconds(50));
  window.waited(microseconds(200));
  REQUIRE(window.now() == microseconds(200));
  for (int wait = 0; wait < 20; ++wait) window.waited(microseconds(5'000));
  REQUIRE(window.now() == microseconds(0));
}

TEST_CASE("output pieces in flight never overlap and the whole ring is used") {
  constexpr std::size_t slot_bytes = 1024;
  constexpr std::size_t slots = 4;
  constexpr std::size_t ring = 16 * 1024;
  OutputBuffers buffers(slots * slot_bytes + ring, slots, slot_bytes);
  REQUIRE(buffers.largest() == ring);
  REQUIRE(buffers.fits_stage(slot_bytes));
  REQUIRE_FALSE(buffers.fits_stage(slot_bytes + 1));

  struct Live {
    std::size_t begin, end;
    std::uint64_t position;
  };
  std::deque<Live> live;
  std::minstd_rand random(7);
  std::size_t full = 0;
  for (int round = 0; round < 20'000; ++round) {
    const std::size_t bytes = 1 + random() % ring;
    const auto piece = buffers.reserve(bytes);
    if (!piece) {
      ++full;
      REQUIRE_FALSE(live.empty());  // An empty ring takes whatever fits it.
      buffers.release(live.front().position);
      live.pop_front();
      continue;
    }
    REQUIRE(piece->offset >= slots * slot_bytes);
    REQUIRE(piece->offset + bytes <= slots * slot_bytes + ring);
    for (const Live& other : live)
      REQUIRE((piece->offset + bytes <= other.begin || piece->offset >= other.end));
    const std::size_t used = 1 + random() % bytes;
    live.push_back({piece->offset, piece->offset + used, buffers.commit(*piece, used)});
  }
  REQUIRE(full > 100);
}

TEST_CASE("an output ring of nothing refuses") {
  OutputBuffers buffers(1024, 1, 1024);
  REQUIRE(buffers.largest() == 1024);
  REQUIRE_FALSE(buffers.reserve(2048).has_value());
}
