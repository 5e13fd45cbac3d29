#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

/// Marks what users of the shared library may call; everything else of it is hidden.
#define SUBLET_API [[gnu::visibility("default")]]

namespace sublet {

/// What went wrong. The numbers cross the wire and the C ABI: append, never renumber.
enum class Errc : std::uint16_t {
  invalid_argument = 1,   ///< The caller's input is wrong; the message says what to change.
  not_found = 2,          ///< No such function, lease, node or file.
  already_exists = 3,     ///< The name is taken by something else.
  permission_denied = 4,  ///< Wrong, expired, replayed or foreign token.
  unavailable = 5,        ///< The peer cannot be reached or refuses for now: try again later.
  no_capacity = 6,        ///< Nothing free that fits; the message says what is missing.
  queue_full = 7,         ///< A limit on what is in flight is reached; nothing was sent.
  too_large = 8,          ///< A payload, message or request exceeds its limit.
  busy = 9,               ///< The object is in use by an invocation in flight.
  lease_expired = 10,     ///< The lease has ended by time; acquire a new one.
  lease_revoked = 11,     ///< The lease has ended by order (drain, reclaim, administrator).
  closed = 12,            ///< The object was closed by this side.
  peer_lost = 13,         ///< The peer died, fell silent or the link is down.
  protocol_error = 14,    ///< The peer sent something that is not ours: garbage, foreign magic.
  version_mismatch = 15,  ///< The peer speaks another version; update the older side.
  timeout = 16,           ///< A control operation did not finish in its bound.
  io_error = 17,          ///< The operating system refused; the message names call and errno.
  out_of_memory = 18,     ///< A pool or the machine is exhausted.
  internal = 19,          ///< A bug of ours, reported instead of crashing the user's program.
  // Final statuses of an invocation other than success.
  function_failed = 32,    ///< The function returned an error; the message is the function's.
  not_started = 33,        ///< The function did not run: safe to run elsewhere.
  worker_lost = 34,        ///< The worker died; the function may have run.
  deadline_exceeded = 35,  ///< No result before the deadline; the function may have run.
  cancelled = 36,          ///< Cancelled before it started.
};

/// The error's stable name, for example "lease_expired". Never allocates.
[[nodiscard]] SUBLET_API std::string_view name(Errc code) noexcept;

/// One sentence that says what the code means and what to do next. Never allocates.
[[nodiscard]] SUBLET_API std::string_view explain(Errc code) noexcept;

/// A code and, off the invocation path, a detail that says what happened and what to do.
/// Constructing one from a code alone does not allocate.
class SUBLET_API Error {
 public:
  Error(Errc code) noexcept : code_(code) {}  // NOLINT(google-explicit-constructor): an error is its code
  Error(Errc code, std::string detail) noexcept : code_(code), detail_(std::move(detail)) {}

  [[nodiscard]] Errc code() const noexcept { return code_; }
  [[nodiscard]] const std::string& detail() const noexcept { return detail_; }
  /// "name: detail", or "name: explanation" without a detail. Allocates.
  [[nodiscard]] std::string message() const;

 private:
  Errc code_;
  std::string detail_;
};

/// Thrown by Result::value() for those who prefer exceptions.
class SUBLET_API Exception : public std::runtime_error {
 public:
  explicit Exception(Error error) : std::runtime_error(error.message()), error_(std::move(error)) {}
  [[nodiscard]] const Error& error() const noexcept { return error_; }
  [[nodiscard]] Errc code() const noexcept { return error_.code(); }

 private:
  Error error_;
};

/// A value or an Error. Thread safety: that of the value.
template <typename T>
class [[nodiscard]] SUBLET_API Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit by design
  Result(Error error) noexcept                                           // NOLINT: implicit by design
      : state_(std::in_place_index<1>, std::move(error)) {}
  Result(Errc code) noexcept : state_(std::in_place_index<1>, code) {}  // NOLINT: implicit by design

  [[nodiscard]] bool ok() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return ok(); }

  /// The value; throws Exception when there is none.
  T& value() & {
    if (!ok()) throw Exception(error());
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    if (!ok()) throw Exception(error());
    return std::move(*std::get_if<0>(&state_));
  }
  const T& value() const& {
    if (!ok()) throw Exception(error());
    return *std::get_if<0>(&state_);
  }
  /// Unchecked access: only after ok().
  T& operator*() & noexcept { return *std::get_if<0>(&state_); }
  T&& operator*() && noexcept { return std::move(*std::get_if<0>(&state_)); }
  const T& operator*() const& noexcept { return *std::get_if<0>(&state_); }
  T* operator->() noexcept { return std::get_if<0>(&state_); }
  const T* operator->() const noexcept { return std::get_if<0>(&state_); }
  /// Only after !ok().
  [[nodiscard]] const Error& error() const noexcept { return *std::get_if<1>(&state_); }

 private:
  std::variant<T, Error> state_;
};

/// Success or an Error.
template <>
class [[nodiscard]] SUBLET_API Result<void> {
 public:
  Result() noexcept = default;
  Result(Error error) noexcept : error_(std::move(error)), ok_(false) {}  // NOLINT: implicit by design
  Result(Errc code) noexcept : error_(code), ok_(false) {}                // NOLINT: implicit by design

  [[nodiscard]] bool ok() const noexcept { return ok_; }
  explicit operator bool() const noexcept { return ok_; }
  void value() const {
    if (!ok_) throw Exception(error_);
  }
  [[nodiscard]] const Error& error() const noexcept { return error_; }

 private:
  Error error_{Errc::internal};
  bool ok_ = true;
};

using Status = Result<void>;

}  // namespace sublet
