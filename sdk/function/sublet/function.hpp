#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <sublet/function.h>

/// C++ over the C ABI of sublet/function.h; header only.
///
///     std::size_t upper(std::span<const std::byte> input, std::span<std::byte> output) { ... }
///     SUBLET_FUNCTION(upper)
///
/// or, with warm state that is made once for each worker:
///
///     struct Classifier { Classifier(); std::size_t operator()(const sublet::Call& call); };
///     SUBLET_STATEFUL_FUNCTION(Classifier)
///
/// The callable returns the output's size in bytes. What it throws reaches the caller as
/// function_failed with what()'s text; so does an output larger than the capacity.
namespace sublet {

/// One call, as a C++ function sees it. Valid until the function returns.
class Call {
 public:
  explicit Call(sublet_call& call) noexcept : call_(call) {}

  [[nodiscard]] std::span<const std::byte> input() const noexcept {
    return {static_cast<const std::byte*>(call_.input), call_.input_bytes};
  }
  /// Where the result goes; its size is what the caller has room for.
  [[nodiscard]] std::span<std::byte> output() const noexcept {
    return {static_cast<std::byte*>(call_.output), call_.output_capacity};
  }
  /// The input's memory as the place of the result, which is then sent from there, without a copy. After
  /// this, output() is these bytes (or as many as the caller has room for).
  [[nodiscard]] std::span<std::byte> in_place() const noexcept {
    call_.output = const_cast<void*>(call_.input);
    call_.output_capacity = std::min(call_.output_capacity, call_.input_bytes);
    return output();
  }
  /// Input as elements; throws when its size is no multiple of the element's.
  template <typename T>
  [[nodiscard]] std::span<const T> input_as() const {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= 64);
    if (call_.input_bytes % sizeof(T) != 0)
      throw std::invalid_argument("the input is no whole number of elements");
    return {static_cast<const T*>(call_.input), call_.input_bytes / sizeof(T)};
  }
  template <typename T>
  [[nodiscard]] std::span<T> output_as() const noexcept {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= 64);
    return {static_cast<T*>(call_.output), call_.output_capacity / sizeof(T)};
  }
  [[nodiscard]] std::uint64_t deadline_us() const noexcept { return call_.deadline_us; }

 private:
  sublet_call& call_;
};

namespace function_detail {

inline void leave_message(char* room, std::size_t size, const char* text) noexcept {
  if (size > 0) std::snprintf(room, size, "%s", text);
}

template <typename Body>
int guarded(char* message, std::size_t size, const Body& body) noexcept {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    leave_message(message, size, error.what());
  } catch (...) {
    leave_message(message, size, "the function threw something that is no std::exception");
  }
  return 1;
}

inline void set_output(sublet_call& call, std::size_t bytes) {
  if (bytes > call.output_capacity) {
    throw std::length_error("the output of " + std::to_string(bytes) + " bytes exceeds the capacity of " +
                            std::to_string(call.output_capacity));
  }
  call.output_bytes = bytes;
}

template <auto function>
int call_plain(sublet_call* call) noexcept {
  return guarded(call->message, call->message_capacity, [call] {
    const Call view(*call);
    if constexpr (std::is_invocable_v<decltype(function), const Call&>) {
      set_output(*call, function(view));
    } else {
      set_output(*call, function(view.input(), view.output()));
    }
  });
}

template <typename State>
int init_state(void** state, char* message, std::size_t size) noexcept {
  return guarded(message, size, [state] { *state = std::make_unique<State>().release(); });
}

template <typename State>
void drop_state(void* state) noexcept {
  const std::unique_ptr<State> owned(static_cast<State*>(state));
}

template <typename State>
int call_state(sublet_call* call) noexcept {
  return guarded(call->message, call->message_capacity,
                 [call] { set_output(*call, (*static_cast<State*>(call->state))(Call(*call))); });
}

}  // namespace function_detail
}  // namespace sublet

/// Exports one plain function: size_t(const sublet::Call&) or size_t(span<const byte>, span<byte>).
#define SUBLET_FUNCTION(function)                                                              \
  extern "C" {                                                                                 \
  static const sublet_entry sublet_entries_[] = {                                              \
      {#function, &sublet::function_detail::call_plain<&function>}};                           \
  SUBLET_EXPORT extern const sublet_module_v1 sublet_module = {                                \
      SUBLET_FUNCTION_ABI, sizeof(sublet_module_v1), sublet_entries_, 1, 0, nullptr, nullptr}; \
  }

/// Exports a class whose object is made when the worker warms and called with `const sublet::Call&`.
#define SUBLET_STATEFUL_FUNCTION(Class)                                                                      \
  extern "C" {                                                                                               \
  static const sublet_entry sublet_entries_[] = {{#Class, &sublet::function_detail::call_state<Class>}};     \
  SUBLET_EXPORT extern const sublet_module_v1 sublet_module = {SUBLET_FUNCTION_ABI,                          \
                                                               sizeof(sublet_module_v1),                     \
                                                               sublet_entries_,                              \
                                                               1,                                            \
                                                               0,                                            \
                                                               &sublet::function_detail::init_state<Class>,  \
                                                               &sublet::function_detail::drop_state<Class>}; \
  }
