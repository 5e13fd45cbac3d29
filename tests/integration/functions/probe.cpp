#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <sublet/function.h>

/// What the tests need of a function: it answers, fails, dies, takes long, takes much.
namespace {

int echo(sublet_call* call) {
  if (call->input_bytes > call->output_capacity) {
    std::strncpy(call->message, "no room for the echo", call->message_capacity);
    return 1;
  }
  std::memcpy(call->output, call->input, call->input_bytes);
  call->output_bytes = call->input_bytes;
  return 0;
}

int fail(sublet_call* call) {
  std::strncpy(call->message, "failed as asked", call->message_capacity);
  return 1;
}

int crash(sublet_call*) {
  volatile std::uintptr_t nowhere = 8;
  *reinterpret_cast<volatile int*>(nowhere) = 1;
  return 0;
}

/// Computes for as many milliseconds as the input says (4 bytes).
int spin(sublet_call* call) {
  std::uint32_t ms = 0;
  std::memcpy(&ms, call->input, std::min(call->input_bytes, sizeof(ms)));
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(ms);
  while (std::chrono::steady_clock::now() < end) {
  }
  return 0;
}

/// Takes as many MiB as the input says (4 bytes) and touches them.
int hog(sublet_call* call) {
  std::uint32_t mib = 0;
  std::memcpy(&mib, call->input, std::min(call->input_bytes, sizeof(mib)));
  if (mib == 0) return 0;
  const std::vector<char> much(std::size_t{mib} << 20, 1);
  call->output_bytes = 1;
  static_cast<char*>(call->output)[0] = much[(std::size_t{mib} << 20) - 1];
  return 0;
}

/// Deep enough for any stack; the depth is the compiler's not to know.
int recurse(volatile std::uint64_t* depth) {
  volatile char here[4096];
  here[0] = static_cast<char>(*depth);
  *depth = *depth + 1;
  if (*depth == ~std::uint64_t{0}) return 0;
  return recurse(depth) + here[0];
}

int overflow_stack(sublet_call*) {
  volatile std::uint64_t depth = 0;
  return recurse(&depth);
}

/// In place.
int reverse(sublet_call* call) {
  call->output = const_cast<void*>(call->input);
  call->output_bytes = call->input_bytes;
  std::reverse(static_cast<char*>(call->output), static_cast<char*>(call->output) + call->output_bytes);
  return 0;
}

/// Leaves a process of another session behind, which sleeps for as many seconds as the input says in digits.
int leave_behind(sublet_call* call) {
  const std::string seconds(static_cast<const char*>(call->input), call->input_bytes);
  return std::system(("setsid sleep " + seconds + " </dev/null >/dev/null 2>&1 &").c_str());
}

const sublet_entry entries[] = {{"echo", echo},       {"fail", fail},
                                {"crash", crash},     {"spin", spin},
                                {"hog", hog},         {"overflow_stack", overflow_stack},
                                {"reverse", reverse}, {"leave_behind", leave_behind}};

}  // namespace

extern "C" SUBLET_EXPORT const sublet_module_v1 sublet_module = {
    SUBLET_FUNCTION_ABI, sizeof(sublet_module_v1), entries, 8, 0, nullptr, nullptr};
