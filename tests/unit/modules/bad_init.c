#include <stdio.h>
#include <sublet/function.h>

static int never(sublet_call* call) {
  (void)call;
  return 0;
}
static int init(void** state, char* message, size_t size) {
  (void)state;
  snprintf(message, size, "no model here");
  return 7;
}
static const sublet_entry entries[] = {{"never", never}};
SUBLET_EXPORT const sublet_module_v1 sublet_module = {
    SUBLET_FUNCTION_ABI, sizeof(sublet_module_v1), entries, 1, 0, init, 0};
