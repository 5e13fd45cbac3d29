#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "runtime/base/result.hpp"
#include "sdk/function/sublet/function.h"

namespace sublet::worker {

/// A loaded function library with its warm state. Load, call and destruction belong to one thread:
/// functions may keep thread-bound state.
class Module {
 public:
  Module() noexcept = default;
  Module(Module&& other) noexcept;
  Module& operator=(Module&& other) noexcept;
  ~Module();

  /// Loads the library, checks its ABI and runs its init hook.
  /// @retval Errc::invalid_argument  Not a function library, or of another ABI; the text says which.
  /// @retval Errc::function_failed   Init failed; the text is the function's.
  [[nodiscard]] static Result<Module> load(const std::string& path);

  [[nodiscard]] bool loaded() const noexcept { return table_ != nullptr; }
  [[nodiscard]] std::uint32_t entries() const noexcept { return table_ != nullptr ? table_->entry_count : 0; }

  /// Runs one call; true on success: then `output` lies where the caller said or inside of the input, with
  /// `output_bytes` in bounds. What the function throws becomes a failure with its text.
  [[nodiscard]] bool call(sublet_call& call) const noexcept;

 private:
  void* library_ = nullptr;
  const sublet_module_v1* table_ = nullptr;
  void* state_ = nullptr;
};

}  // namespace sublet::worker
