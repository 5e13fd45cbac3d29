#include <sublet/function.h>

SUBLET_EXPORT const sublet_module_v1 sublet_module = {99, sizeof(sublet_module_v1), 0, 0, 0, 0, 0};
