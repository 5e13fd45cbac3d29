#include <cstring>
#include <stdexcept>
#include <string>

#include <sublet/function.h>

namespace {

int echo(sublet_call* call) {
  std::memcpy(call->output, call->input, call->input_bytes);
  call->output_bytes = call->input_bytes;
  return 0;
}

int fail(sublet_call* call) {
  std::strncpy(call->message, "as asked", call->message_capacity);
  return 1;
}

int raise(sublet_call*) {
  throw std::runtime_error("thrown out of an entry");
}

int boast(sublet_call* call) {
  call->output_bytes = call->output_capacity + 1;
  return 0;
}

int show_state(sublet_call* call) {
  std::memcpy(call->output, call->state, 4);
  call->output_bytes = 4;
  return 0;
}

/// In place: all but the first two bytes.
int tail(sublet_call* call) {
  call->output = const_cast<char*>(static_cast<const char*>(call->input)) + 2;
  call->output_bytes = call->input_bytes - 2;
  return 0;
}

int point_beyond(sublet_call* call) {
  call->output = const_cast<char*>(static_cast<const char*>(call->input)) + call->input_bytes + 1;
  call->output_bytes = 1;
  return 0;
}

int init(void** state, char*, size_t) {
  *state = new char[4]{'w', 'a', 'r', 'm'};
  return 0;
}

void teardown(void* state) {
  delete[] static_cast<char*>(state);
}

const sublet_entry entries[] = {{"echo", echo},
                                {"fail", fail},
                                {"raise", raise},
                                {"boast", boast},
                                {"show_state", show_state},
                                {"tail", tail},
                                {"point_beyond", point_beyond}};

}  // namespace

extern "C" SUBLET_EXPORT const sublet_module_v1 sublet_module = {
    SUBLET_FUNCTION_ABI, sizeof(sublet_module_v1), entries, 7, 0, init, teardown};
