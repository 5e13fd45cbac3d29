#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "runtime/base/result.hpp"
#include "runtime/control/http_pairs.hpp"

namespace sublet::control {

struct HttpAnswer {
  unsigned status = 0;
  std::string body;
  Pairs headers;  ///< Names in lower case.
};

/// A keep-alive HTTP/1.1 client to one server. Every call is bounded by its timeout. A request on a
/// kept connection that the server has closed meanwhile is sent again once if it had not been answered
/// in part and is GET, PUT or DELETE. A host name is resolved by the system's resolver, under its bound.
/// Starts no thread. Thread safety: one thread at a time, except cancel().
class HttpClient {
 public:
  /// @param url "http://host:port" without a path. invalid_argument when it is not.
  [[nodiscard]] static Result<std::unique_ptr<HttpClient>> create(const std::string& url);
  ~HttpClient();

  /// The server's answer of whatever status, or unavailable / timeout / protocol_error.
  [[nodiscard]] Result<HttpAnswer> request(std::string_view method, const std::string& target,
                                           std::string body, std::chrono::milliseconds timeout,
                                           const Pairs& headers = {});

  /// Ends a request under way in another thread, and every later one, with Errc::closed. Any thread.
  void cancel() noexcept;

 private:
  struct Impl;
  explicit HttpClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Turns an answer outside 2xx into the Error of its ErrorBody.
[[nodiscard]] Result<std::string> body_of(Result<HttpAnswer> answer);

}  // namespace sublet::control
