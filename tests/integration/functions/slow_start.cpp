#include <chrono>
#include <cstring>
#include <thread>

#include <sublet/function.h>

/// A function whose warm state takes longer to make than a client waits for one connection.
namespace {

int init(void** state, char*, size_t) {
  static char ready[] = "loaded";
  std::this_thread::sleep_for(std::chrono::milliseconds(3'000));  // Stands for a model that is read.
  *state = ready;
  return 0;
}

int answer(sublet_call* call) {
  call->output_bytes = std::strlen(static_cast<const char*>(call->state));
  std::memcpy(call->output, call->state, call->output_bytes);
  return 0;
}

const sublet_entry entries[] = {{"answer", answer}};

}  // namespace

extern "C" SUBLET_EXPORT const sublet_module_v1 sublet_module = {
    SUBLET_FUNCTION_ABI, sizeof(sublet_module_v1), entries, 1, 0, init, nullptr};
