/* The function ABI of Sublet: what a shared library exports to be run by a worker.
 *
 * A library exports one symbol, `sublet_module`. Version 1 of the ABI; the structs grow at their end
 * only, and `size_bytes` tells a reader how much of a struct its writer knew. */
#ifndef SUBLET_FUNCTION_H
#define SUBLET_FUNCTION_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SUBLET_FUNCTION_ABI 1u
#define SUBLET_EXPORT __attribute__((visibility("default")))

/* One call. Owned by the worker, valid until the entry returns. */
typedef struct sublet_call {
  uint32_t size_bytes; /* sizeof(sublet_call) of the worker */
  uint32_t entry;      /* which entry of the module was called */
  const void* input;   /* read-only but for a result in place, 64-byte aligned; NULL never */
  size_t input_bytes;
  void* output;           /* write the result here, 64-byte aligned; or point it into the input and leave
                             the result there, inside of its bytes: it is sent from there, uncopied */
  size_t output_capacity; /* bytes; a result that needs more is an error (sublet_fail) */
  size_t output_bytes;    /* set by the entry: bytes of the result; 0 at the call */
  uint64_t deadline_us;   /* left at the start of the call; the worker is ended soon after it */
  void* state;            /* what init gave */
  char* message;          /* an entry that fails leaves text here, zero-terminated */
  size_t message_capacity;
} sublet_call;

/* Runs one call. Returns 0 on success and anything else on failure, with a message. Calls on one worker
 * never overlap. An entry must not fork, exit, close descriptors it did not open or leave threads that
 * touch the call after it returned. A C++ exception that leaves it becomes a failure. */
typedef int (*sublet_entry_fn)(sublet_call* call);

/* Runs once before the first call, when the worker warms: loads a model, opens files. Returns 0 and sets
 * *state, or leaves a message. */
typedef int (*sublet_init_fn)(void** state, char* message, size_t message_capacity);
/* Runs once when the worker ends in good order. */
typedef void (*sublet_teardown_fn)(void* state);

typedef struct sublet_entry {
  const char* name;
  sublet_entry_fn call;
} sublet_entry;

typedef struct sublet_module_v1 {
  uint32_t abi;        /* SUBLET_FUNCTION_ABI */
  uint32_t size_bytes; /* sizeof(sublet_module_v1) of the library */
  const sublet_entry* entries;
  uint32_t entry_count; /* at least 1 */
  uint32_t reserved;
  sublet_init_fn init;         /* or NULL */
  sublet_teardown_fn teardown; /* or NULL */
} sublet_module_v1;

/* To be defined by the library: SUBLET_EXPORT const sublet_module_v1 sublet_module = {...}; */
SUBLET_EXPORT extern const sublet_module_v1 sublet_module;

#ifdef __cplusplus
}
#endif
#endif
