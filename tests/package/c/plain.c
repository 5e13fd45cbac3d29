/* A function in C, against the ABI's header alone. */
#include <sublet/function.h>

static int nothing(sublet_call* call) {
  call->output_bytes = 0;
  return 0;
}

static const sublet_entry entries[] = {{"nothing", nothing}};
SUBLET_EXPORT const sublet_module_v1 sublet_module = {
    SUBLET_FUNCTION_ABI, sizeof(sublet_module_v1), entries, 1, 0, NULL, NULL};
