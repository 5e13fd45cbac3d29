#include "benchmarks/anatomy/stepper.hpp"

#include <sched.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace sublet::bench {
namespace {

constexpr std::uint64_t pass_instructions_max = 2'000'000;
constexpr std::chrono::seconds stop_max{20};
/// Heartbeats must go out, however slow the machine is: others stand still for so long, then run for so long.
constexpr std::chrono::milliseconds held_max{100};
constexpr std::chrono::milliseconds rest{10};
constexpr std::uint64_t breakpoint = 0xcc;
constexpr std::uint64_t system_call_opcode = 0x050f;

[[noreturn]] void fail(const char* what) {
  throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

long trace(__ptrace_request request, pid_t process, std::uint64_t address, std::uint64_t data) {
  errno = 0;
  // ptrace(2) takes numbers as pointers. NOLINTNEXTLINE(performance-no-int-to-ptr)
  return ::ptrace(request, process, reinterpret_cast<void*>(address), reinterpret_cast<void*>(data));
}

std::uint64_t word_at(pid_t process, std::uint64_t address) {
  const long word = trace(PTRACE_PEEKTEXT, process, address, 0);
  if (errno != 0) fail("cannot read a traced process");
  return static_cast<std::uint64_t>(word);
}

}  // namespace

Stepper::Stepper(pid_t process) : process_(process) {
  if (trace(PTRACE_SEIZE, process, 0, 0) != 0)
    throw TracingRefused(std::string("tracing is forbidden here: ") + std::strerror(errno));
  stop(process);
  read_mappings();
}

Stepper::~Stepper() {
  release_others();
  (void)trace(PTRACE_DETACH, process_, 0, 0);
}

void Stepper::stop(pid_t thread) {
  if (trace(PTRACE_INTERRUPT, thread, 0, 0) != 0) fail("cannot stop a process of this benchmark");
  wait_for_stop(thread, 0);
}

/// One of them that waits for a lock which the slow thread holds would take the core from it.
void Stepper::hold_others() {
  held_since_ = std::chrono::steady_clock::now();
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(process_) + "/task")) {
    const auto thread = static_cast<pid_t>(std::stol(task.path().filename()));
    if (thread == process_ || trace(PTRACE_SEIZE, thread, 0, 0) != 0) continue;  // It may have just ended.
    others_.push_back(thread);
    stop(thread);
  }
}

void Stepper::release_others() noexcept {
  for (const pid_t thread : others_) (void)trace(PTRACE_DETACH, thread, 0, 0);
  others_.clear();
}

void Stepper::read_mappings() {
  mappings_.clear();
  std::ifstream maps("/proc/" + std::to_string(process_) + "/maps");
  std::map<std::string, std::uint64_t> bases;
  for (std::string line; std::getline(maps, line);) {
    std::istringstream fields(line);
    std::string range, rights, offset, device, inode, file;
    fields >> range >> rights >> offset >> device >> inode >> file;
    const auto dash = range.find('-');
    Mapping mapping{.begin = std::stoull(range.substr(0, dash), nullptr, 16),
                    .end = std::stoull(range.substr(dash + 1), nullptr, 16)};
    mapping.file = file.empty() ? "anonymous" : std::filesystem::path(file).filename().string();
    mapping.base = bases.emplace(mapping.file, mapping.begin).first->second;
    if (rights.find('x') != std::string::npos) mappings_.push_back(std::move(mapping));
  }
}

const Stepper::Mapping* Stepper::mapping_of(std::uint64_t address) {
  const auto inside = [&](const Mapping& mapping) {
    return address >= mapping.begin && address < mapping.end;
  };
  auto found = std::find_if(mappings_.begin(), mappings_.end(), inside);
  if (found == mappings_.end()) {  // Loaded meanwhile.
    read_mappings();
    found = std::find_if(mappings_.begin(), mappings_.end(), inside);
  }
  return found != mappings_.end() ? &*found : nullptr;
}

bool Stepper::is_system_call(std::uint64_t address) {
  const auto [known, fresh] = system_calls_.try_emplace(address, false);
  if (fresh) known->second = (word_at(process_, address) & 0xffff) == system_call_opcode;
  return known->second;
}

std::uint64_t Stepper::where() const {
  user_regs_struct registers{};
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  if (::ptrace(PTRACE_GETREGS, process_, nullptr, &registers) != 0)
    fail("cannot read a traced process's registers");
  return registers.rip;
}

/// @param wanted The signal of the stop; 0: any.
void Stepper::wait_for_stop(pid_t thread, int wanted) {
  const auto end = std::chrono::steady_clock::now() + stop_max;
  for (;;) {
    int status = 0;
    const pid_t got = ::waitpid(thread, &status, __WALL | WNOHANG);
    if (got < 0 && errno != EINTR) fail("cannot wait for a traced process");
    if (got <= 0) {
      if (std::chrono::steady_clock::now() > end)
        throw std::runtime_error("a traced process does not come to its mark");
      ::sched_yield();  // To the traced one, on whose core this is. A sleep would take longer than its step.
      continue;
    }
    if (!WIFSTOPPED(status)) throw std::runtime_error("a traced process has ended");
    if (wanted == 0 || WSTOPSIG(status) == wanted) return;
    // Another signal is the process's own.
    if (trace(PTRACE_CONT, thread, 0, static_cast<std::uint64_t>(WSTOPSIG(status))) != 0)
      fail("cannot go on");
  }
}

/// At full speed, with a breakpoint.
void Stepper::run_to(std::uint64_t mark) {
  const std::uint64_t word = word_at(process_, mark);
  const std::uint64_t trapped = (word & ~std::uint64_t{0xff}) | breakpoint;
  if (trace(PTRACE_POKETEXT, process_, mark, trapped) != 0) fail("cannot set a breakpoint");
  if (trace(PTRACE_CONT, process_, 0, 0) != 0) fail("cannot let a traced process run");
  wait_for_stop(process_, SIGTRAP);
  if (trace(PTRACE_POKETEXT, process_, mark, word) != 0) fail("cannot remove a breakpoint");
  user_regs_struct registers{};
  if (::ptrace(PTRACE_GETREGS, process_, nullptr, &registers) != 0)
    fail("cannot read a traced process's registers");
  registers.rip = mark;
  if (::ptrace(PTRACE_SETREGS, process_, nullptr, &registers) != 0)
    fail("cannot set a traced process's registers");
}

void Stepper::step() {
  if (trace(PTRACE_SINGLESTEP, process_, 0, 0) != 0) fail("cannot step a traced process");
  wait_for_stop(process_, SIGTRAP);
}

Executed Stepper::pass(std::uint64_t mark) {
  Executed executed;
  std::uint64_t at = mark;
  do {
    const Mapping* mapping = mapping_of(at);
    ++executed.instructions;
    if (mapping != nullptr) {
      ++executed.by_file[mapping->file];
      if (mapping->file == marked_) ++executed.by_place[at - mapping->base];
    }
    if (is_system_call(at)) ++executed.system_calls;
    const std::uint64_t last = at;
    if (std::chrono::steady_clock::now() - held_since_ > held_max) {
      release_others();
      std::this_thread::sleep_for(rest);
      hold_others();
    }
    while (at == last) {  // A repeated string instruction stops after each turn.
      step();
      at = where();
    }
    if (executed.instructions > pass_instructions_max) {
      throw std::runtime_error("a traced process did not come back to its mark within " +
                               std::to_string(pass_instructions_max) + " instructions");
    }
  } while (at != mark);
  return executed;
}

std::vector<Executed> Stepper::passes(const std::string& file, std::uint64_t offset, unsigned count) {
  const auto mapping = std::find_if(mappings_.begin(), mappings_.end(),
                                    [&](const Mapping& each) { return each.file == file; });
  if (mapping == mappings_.end()) throw std::runtime_error("a traced process does not use " + file);
  marked_ = file;
  const std::uint64_t mark = mapping->base + offset;
  std::vector<Executed> all;
  while (all.size() < count) {
    run_to(mark);
    hold_others();
    all.push_back(pass(mark));
    release_others();
    if (trace(PTRACE_CONT, process_, 0, 0) != 0) fail("cannot let a traced process run");
    std::this_thread::sleep_for(rest);
    stop(process_);
  }
  return all;
}

}  // namespace sublet::bench
