#include "runtime/base/result.hpp"

#include <array>

namespace sublet {
namespace {

struct Entry {
  Errc code;
  std::string_view name;
  std::string_view explanation;
};

constexpr std::array entries{
    Entry{Errc::invalid_argument, "invalid_argument", "an argument is wrong; see the call's documentation"},
    Entry{Errc::not_found, "not_found", "there is no such object; list what exists with `sublet`"},
    Entry{Errc::already_exists, "already_exists", "the name is taken; choose another name or version"},
    Entry{Errc::permission_denied, "permission_denied",
          "the token is wrong, expired or already used; acquire a new lease"},
    Entry{Errc::unavailable, "unavailable", "the peer cannot be reached; check that it runs, then try again"},
    Entry{Errc::no_capacity, "no_capacity", "nothing free fits the request; ask for less or try again later"},
    Entry{Errc::queue_full, "queue_full",
          "the limit of calls in flight is reached; wait for a result, then submit again"},
    Entry{Errc::too_large, "too_large",
          "the payload exceeds a limit; split it or raise the limit of the lease"},
    Entry{Errc::busy, "busy", "the object is in use by a call in flight; wait for its result"},
    Entry{Errc::lease_expired, "lease_expired", "the lease has ended; acquire a new one"},
    Entry{Errc::lease_revoked, "lease_revoked", "the lease was taken back; acquire a new one"},
    Entry{Errc::closed, "closed", "the object was closed; open a new one"},
    Entry{Errc::peer_lost, "peer_lost", "the peer died, fell silent or the link is down"},
    Entry{Errc::protocol_error, "protocol_error",
          "the peer does not speak Sublet's protocol; check the address"},
    Entry{Errc::version_mismatch, "version_mismatch",
          "the peer speaks another version; update the older side"},
    Entry{Errc::timeout, "timeout", "the operation did not finish in time; check the peer, then try again"},
    Entry{Errc::io_error, "io_error", "the operating system refused an operation"},
    Entry{Errc::out_of_memory, "out_of_memory",
          "memory is exhausted; free buffers or raise the limit of the lease"},
    Entry{Errc::internal, "internal", "a bug in Sublet; please report it"},
    Entry{Errc::function_failed, "function_failed", "the function returned an error"},
    Entry{Errc::not_started, "not_started", "the function did not run; it is safe to call again"},
    Entry{Errc::worker_lost, "worker_lost", "the worker died; the function may have run"},
    Entry{Errc::deadline_exceeded, "deadline_exceeded",
          "no result before the deadline; the function may have run"},
    Entry{Errc::cancelled, "cancelled", "the call was cancelled before it started"},
};

const Entry* find(Errc code) noexcept {
  for (const Entry& entry : entries) {
    if (entry.code == code) return &entry;
  }
  return nullptr;
}

}  // namespace

std::string_view name(Errc code) noexcept {
  const Entry* entry = find(code);
  return entry != nullptr ? entry->name : std::string_view("unknown_error");
}

std::string_view explain(Errc code) noexcept {
  const Entry* entry = find(code);
  return entry != nullptr ? entry->explanation : std::string_view("an error of a newer version");
}

std::string Error::message() const {
  std::string text(name(code_));
  text += ": ";
  text += detail_.empty() ? explain(code_) : std::string_view(detail_);
  return text;
}

}  // namespace sublet
