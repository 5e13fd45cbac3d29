#pragma once

#include <charconv>
#include <cstdint>
#include <string>

#include "runtime/base/result.hpp"
#include "runtime/control/api.hpp"
#include "runtime/control/http_server.hpp"

namespace sublet::manager {

/// A number in a path or query.
[[nodiscard]] inline Result<std::uint64_t> parse_number(const std::string& text, const char* what) {
  std::uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (text.empty() || error != std::errc() || stop != end) {
    return Error(Errc::invalid_argument, std::string(what) + " must be a whole number");
  }
  return number;
}

/// The {id} of a request's path.
[[nodiscard]] inline Result<std::uint64_t> id_of(const control::HttpRequest& request) {
  return parse_number(request.parameters.at("id"), "the id in the path");
}

/// Answers with the result's JSON, or its error.
template <typename T>
void send_json(const control::Responder& responder, const Result<T>& result, unsigned status = 200) {
  if (!result) return responder.send(result.error());
  responder.send({.status = status, .body = api::to_json(*result)});
}

}  // namespace sublet::manager
