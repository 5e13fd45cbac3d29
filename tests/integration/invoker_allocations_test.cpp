#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "executor/worker/invoker.hpp"
#include "tests/catch.hpp"
#include "tests/integration/malloc_counter.hpp"

using namespace sublet;

namespace {

/// Both ends of one connection, each serviced by a thread of its own.
struct Pair {
  std::unique_ptr<transport::Transport> server;
  std::unique_ptr<transport::Transport> client;
  std::unique_ptr<transport::Connection> accepted;
  std::unique_ptr<transport::Connection> connected;

  Pair(const std::string& name, const memory::Region& served, const memory::Region& own,
       transport::RemoteRegion& served_key, transport::RemoteRegion& own_key) {
    const auto directory =
        std::filesystem::temp_directory_path() / ("sublet-alloc-" + std::to_string(::getpid()) + ".sock");
    server = transport::open(name).value();
    client = transport::open(name).value();
    served_key = server->register_region(served).value();
    own_key = client->register_region(own).value();
    const std::string address = server->listen(name == "tcp" ? "127.0.0.1:0" : directory.string()).value();
    std::atomic<bool> done{false};
    std::thread accepting([&] {
      while (!done.load()) {
        server->service(std::chrono::milliseconds(5));
        for (const auto& request : server->requests()) accepted = server->accept(request.id, {}).value();
      }
    });
    connected = client->connect(address, {}, std::chrono::seconds(20)).value().connection;
    done.store(true);
    accepting.join();
  }
};

}  // namespace

TEST_CASE("the counter sees an allocation of the watched thread") {
  test::watch_this_thread();
  test::count_allocations(true);
  void* volatile block = std::malloc(16);
  test::count_allocations(false);
  std::free(block);
  REQUIRE(test::take_allocations() == 1);
}

TEST_CASE("the worker's invocation path allocates nothing") {
  const std::string name = GENERATE("shm", "tcp");
  CAPTURE(name);
  constexpr std::uint16_t calls = 10'000;
  const auto input = memory::Region::create(std::size_t{8} << 20, "input").value();
  const auto output = memory::Region::create(std::size_t{9} << 20, "output").value();
  const auto own = memory::Region::create(std::size_t{1} << 20, "client").value();
  transport::RemoteRegion input_key;
  transport::RemoteRegion own_key;
  Pair pair(name, input, own, input_key, own_key);
  REQUIRE(pair.accepted != nullptr);

  const wire::Layout layout = wire::layout_of({.slots_log2 = 4, .slot_bytes_log2 = 12}, input.size()).value();
  const worker::Module module = worker::Module::load(SUBLET_PROBE_FUNCTION).value();
  local::UsageRecord usage;
  worker::Invoker invoker({std::move(pair.accepted), layout, &input, &output}, module, usage);
  std::thread running([&] {
    test::watch_this_thread();
    [[maybe_unused]] const worker::Stop stop = invoker.run();
    test::count_allocations(false);
  });

  const wire::Attach attach{.region_base = own_key.base,
                            .region_key = own_key.key,
                            .region_bytes = own.size(),
                            .messages_offset = own.size() - 16 * limits::message_bytes,
                            .hot_us = 1000};
  std::memcpy(own.data(), &attach, sizeof(attach));
  const std::array attaching{std::span<const std::byte>(own.bytes().first(sizeof(attach)))};
  REQUIRE(
      pair.connected->write(attaching, input_key, wire::attach_offset, wire::Word{3, 0, 0}.pack(), {}).ok());
  const wire::RequestHeader header{
      .entry = 0, .output_offset = 8192, .output_capacity = 1024, .deadline_us = 20'000'000};
  std::memcpy(own.data() + 64, &header, sizeof(header));
  const std::array request{std::span<const std::byte>(own.bytes().subspan(64, sizeof(header) + 256))};
  std::uint16_t replies = 0;
  for (std::uint16_t call = 1; call <= calls; ++call) {
    test::count_allocations(call > calls / 2);
    REQUIRE(pair.connected
                ->write(request, input_key, layout.slot_offset(0) + wire::header_offset,
                        wire::Word{1, 0, call}.pack(), {})
                .ok());
    std::array<transport::Completion, 1> completion;
    const TimePoint end = SteadyClock::now() + std::chrono::seconds(20);
    while (pair.connected->poll(completion) == 0 && SteadyClock::now() < end) std::this_thread::yield();
    if (completion[0].kind == transport::Completion::Kind::arrival && completion[0].length == 256) ++replies;
  }
  test::count_allocations(false);
  invoker.stop_soon();
  running.join();
  REQUIRE(replies == calls);
  REQUIRE(usage.calls == calls);
  REQUIRE(test::take_allocations() == 0);
}
