#include "executor/worker/worker.hpp"

#include <signal.h>
#include <sys/prctl.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <string>
#include <thread>

#include "executor/worker/steward.hpp"
#include "runtime/base/assert.hpp"

namespace sublet::worker {
namespace {

std::atomic<Invoker*> crashing_invoker{nullptr};
constexpr std::array crash_signals{SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

/// Says which call crashed, then lets the signal do what it does. Async-signal-safe.
void on_crash(int signal) {
  if (Invoker* invoker = crashing_invoker.load(std::memory_order_acquire)) invoker->say_crashed(signal);
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

/// On a stack of its own: a function that overflows the stack is told apart as well.
void install_crash_handler() {
  static std::array<char, 64 * 1024> stack;
  const stack_t alternate{.ss_sp = stack.data(), .ss_flags = 0, .ss_size = stack.size()};
  ::sigaltstack(&alternate, nullptr);
  struct sigaction action {};
  action.sa_handler = &on_crash;
  action.sa_flags = SA_ONSTACK | SA_NODEFER;
  for (const int signal : crash_signals) ::sigaction(signal, &action, nullptr);
}

Result<Opened> open_transport(std::string_view name, const std::string& address, const memory::Region& input,
                              const memory::Region& output) {
  auto transport = transport::open(name);
  if (!transport) return transport.error();
  Opened opened{std::move(*transport), {}, {}};
  auto registered = opened.transport->register_region(input);
  if (!registered) return registered.error();
  opened.input = *registered;
  if (auto outputs = opened.transport->register_region(output); !outputs) return outputs.error();
  auto listening = opened.transport->listen(address);
  if (!listening) return listening.error();
  opened.address = *listening;
  return opened;
}

int fail(const std::string& what) {
  std::fprintf(stderr, "sublet-worker: %s\n", what.c_str());
  return 1;
}

void run_tasks(Steward& steward) {
  for (;;) {
    Task task = steward.next_task();
    switch (task.kind) {
      case Task::Kind::load:
        steward.loaded(Module::load(task.path));
        break;
      case Task::Kind::serve: {
        crashing_invoker.store(task.invoker, std::memory_order_release);
        const Stop stop = task.invoker->run();
        crashing_invoker.store(nullptr, std::memory_order_release);
        steward.served(stop);
        break;
      }
      case Task::Kind::leave:
        return;
    }
  }
}

}  // namespace

int run_worker(const local::Fork& spec, FileDescriptor agent, FileDescriptor usage) {
  ::prctl(PR_SET_NAME, "sublet-worker");
  install_crash_handler();
  const auto page = local::UsagePage::map(std::move(usage));
  if (!page) return fail(page.error().message());
  auto input = memory::Region::create(spec.region_bytes, "sublet-input");
  if (!input) return fail(input.error().message());
  auto output =
      memory::Region::create(spec.region_bytes + limits::slots_max * limits::message_bytes, "sublet-output");
  if (!output) return fail(output.error().message());

  std::vector<Opened> transports;
  local::Ready ready;
  for (const local::Endpoint& wanted : spec.listen) {
    const std::string name(local::get(wanted.transport));
    if (name.empty()) continue;
    auto opened = open_transport(name, std::string(local::get(wanted.address)), *input, *output);
    if (!opened) {
      std::fprintf(stderr, "sublet-worker: serves without %s: %s\n", name.c_str(),
                   opened.error().message().c_str());
      continue;
    }
    SUBLET_ASSERT(local::add(ready.endpoints, name, opened->address));  // As many as in the packet at most.
    transports.push_back(std::move(*opened));
  }
  if (transports.empty()) return fail("no transport works on this node; see the lines above");

  Steward steward(spec, agent.get(), transports, *input, *output, page->record());
  if (spec.function != 0) {
    auto module = Module::load(std::string(local::get(spec.function_path)));
    if (!module) {
      local::Ended ended{.reason = local::EndReason::load_failed};
      local::put(ended.text, module.error().message());
      [[maybe_unused]] const Status told = local::send(agent.get(), ended);
      return 1;
    }
    steward.preloaded(std::move(*module));
  }
  if (!local::send(agent.get(), ready).ok()) return 1;
  std::thread thread([&steward] { steward.run(); });
  run_tasks(steward);
  thread.join();
  return 0;
}

}  // namespace sublet::worker
