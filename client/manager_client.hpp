#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "runtime/base/result.hpp"
#include "runtime/control/api.hpp"
#include "runtime/control/http_client.hpp"

namespace sublet::client {

/// For a path or query: what is not plain is written as %XX.
[[nodiscard]] std::string escape(const std::string& text);

/// What a client says to the manager. Every call blocks at most its timeout. Thread safety: one thread
/// at a time, except cancel().
class ManagerClient {
 public:
  using Timeout = std::chrono::milliseconds;

  [[nodiscard]] static Result<std::unique_ptr<ManagerClient>> create(const std::string& url);

  /// Asks whether a manager answers there.
  [[nodiscard]] Status check(Timeout timeout);
  [[nodiscard]] Result<api::LeaseGrant> lease(const api::LeaseRequest& request, Timeout timeout);
  [[nodiscard]] Result<api::LeaseGrant> renew(std::uint64_t lease, std::uint64_t ttl_ms, Timeout timeout);
  /// One worker more in the place of the one that was lost.
  [[nodiscard]] Result<api::GrantedWorker> replace(std::uint64_t lease, const api::ReplaceRequest& lost,
                                                   Timeout timeout);
  /// A lease that has ended already is no error.
  [[nodiscard]] Status release(std::uint64_t lease, Timeout timeout);
  [[nodiscard]] Result<api::FunctionInfo> deploy(const std::string& name, const std::string& version,
                                                 std::string library, Timeout timeout);
  /// The JSON body of GET /v1/`what`.
  [[nodiscard]] Result<std::string> list(const std::string& what, Timeout timeout);

  /// Ends the request under way and every later one with Errc::closed. Any thread.
  void cancel() noexcept { http_->cancel(); }

 private:
  explicit ManagerClient(std::unique_ptr<control::HttpClient> http) : http_(std::move(http)) {}
  template <typename Answer>
  [[nodiscard]] Result<Answer> ask(std::string_view method, const std::string& target, std::string body,
                                   Timeout timeout);
  std::unique_ptr<control::HttpClient> http_;
};

}  // namespace sublet::client
