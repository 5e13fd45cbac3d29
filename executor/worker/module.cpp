#include "executor/worker/module.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <utility>

namespace sublet::worker {
namespace {

Status check(const sublet_module_v1& table) {
  if (table.abi != SUBLET_FUNCTION_ABI || table.size_bytes < sizeof(sublet_module_v1)) {
    return Error(Errc::invalid_argument, "the library was built for function ABI " +
                                             std::to_string(table.abi) + ", this worker runs " +
                                             std::to_string(SUBLET_FUNCTION_ABI) +
                                             "; build it again with this version's sublet/function.h");
  }
  if (table.entries == nullptr || table.entry_count == 0) {
    return Error(Errc::invalid_argument, "the library's sublet_module has no entries");
  }
  for (std::uint32_t i = 0; i < table.entry_count; ++i) {
    if (table.entries[i].call == nullptr) {
      return Error(Errc::invalid_argument, "entry " + std::to_string(i) + " of sublet_module is null");
    }
  }
  return {};
}

/// How long an output at `at` may be: in the room that was given, or in place of the input.
std::size_t room_at(const void* at, const sublet_call& given) noexcept {
  if (at == given.output) return given.output_capacity;
  // Compared as numbers: a function may have left anything here.
  const auto offset = reinterpret_cast<std::uintptr_t>(at) - reinterpret_cast<std::uintptr_t>(given.input);
  return offset <= given.input_bytes ? std::min(given.input_bytes - offset, given.output_capacity) : 0;
}

}  // namespace

Module::Module(Module&& other) noexcept
    : library_(std::exchange(other.library_, nullptr)),
      table_(std::exchange(other.table_, nullptr)),
      state_(std::exchange(other.state_, nullptr)) {}

Module& Module::operator=(Module&& other) noexcept {
  std::swap(library_, other.library_);
  std::swap(table_, other.table_);
  std::swap(state_, other.state_);
  return *this;
}

Module::~Module() {
  if (table_ != nullptr && table_->teardown != nullptr) table_->teardown(state_);
  // The library stays mapped: its thread-local destructors and atexit handlers may still run.
}

Result<Module> Module::load(const std::string& path) {
  Module module;
  module.library_ = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module.library_ == nullptr) {
    return Error(Errc::invalid_argument, std::string("the library cannot be loaded: ") + ::dlerror());
  }
  const auto* table = static_cast<const sublet_module_v1*>(::dlsym(module.library_, "sublet_module"));
  if (table == nullptr) {
    return Error(Errc::invalid_argument, "the library exports no sublet_module; see sublet/function.h");
  }
  if (Status checked = check(*table); !checked) return checked.error();
  if (table->init != nullptr) {
    std::array<char, 256> message{};
    int failed = 1;
    try {
      failed = table->init(&module.state_, message.data(), message.size());
    } catch (const std::exception& error) {
      std::snprintf(message.data(), message.size(), "%s", error.what());
    } catch (...) {
      std::snprintf(message.data(), message.size(), "init threw something that is no std::exception");
    }
    message.back() = '\0';
    if (failed != 0) return Error(Errc::function_failed, std::string("init failed: ") + message.data());
  }
  module.table_ = table;
  return module;
}

bool Module::call(sublet_call& call) const noexcept {
  const sublet_call given = call;
  call.state = state_;
  try {
    if (table_->entries[call.entry].call(&call) != 0) return false;
  } catch (const std::exception& error) {
    std::snprintf(given.message, given.message_capacity, "%s", error.what());
    return false;
  } catch (...) {
    std::snprintf(given.message, given.message_capacity,
                  "the function threw something that is no std::exception");
    return false;
  }
  const std::size_t room = room_at(call.output, given);
  if (call.output_bytes > room) {
    std::snprintf(given.message, given.message_capacity,
                  "the function claims an output of %zu bytes; there was room for %zu", call.output_bytes,
                  room);
    return false;
  }
  return true;
}

}  // namespace sublet::worker
