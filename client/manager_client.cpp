#include "client/manager_client.hpp"

#include <span>
#include <utility>

#include "runtime/base/digest.hpp"

namespace sublet::client {

namespace {

std::string lease_path(std::uint64_t lease) {
  return "/v1/leases/" + std::to_string(lease);
}

}  // namespace

std::string escape(const std::string& text) {
  std::string escaped;
  for (const char letter : text) {
    const bool plain = (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
                       (letter >= '0' && letter <= '9') ||
                       std::string_view("-._~").find(letter) != std::string_view::npos;
    if (plain) {
      escaped += letter;
    } else {
      escaped += '%' + to_hex(std::as_bytes(std::span(&letter, 1)));
    }
  }
  return escaped;
}

Result<std::unique_ptr<ManagerClient>> ManagerClient::create(const std::string& url) {
  auto http = control::HttpClient::create(url);
  if (!http.ok()) return http.error();
  return std::unique_ptr<ManagerClient>(new ManagerClient(std::move(*http)));
}

template <typename Answer>
Result<Answer> ManagerClient::ask(std::string_view method, const std::string& target, std::string body,
                                  Timeout timeout) {
  const auto answer = control::body_of(http_->request(method, target, std::move(body), timeout));
  if (!answer.ok()) return answer.error();
  return api::from_json<Answer>(*answer);
}

Status ManagerClient::check(Timeout timeout) {
  const auto answer = control::body_of(http_->request("GET", "/readyz", "", timeout));
  return answer.ok() ? Status{} : answer.error();
}

Result<api::LeaseGrant> ManagerClient::lease(const api::LeaseRequest& request, Timeout timeout) {
  return ask<api::LeaseGrant>("POST", "/v1/leases", api::to_json(request), timeout);
}

Result<api::LeaseGrant> ManagerClient::renew(std::uint64_t lease, std::uint64_t ttl_ms, Timeout timeout) {
  return ask<api::LeaseGrant>("POST", lease_path(lease) + "/renew",
                              api::to_json(api::RenewRequest{.ttl_ms = ttl_ms}), timeout);
}

Result<api::GrantedWorker> ManagerClient::replace(std::uint64_t lease, const api::ReplaceRequest& lost,
                                                  Timeout timeout) {
  auto grant = ask<api::LeaseGrant>("POST", lease_path(lease) + "/replace", api::to_json(lost), timeout);
  if (!grant.ok()) return grant.error();
  if (grant->workers.size() != 1) return Error(Errc::protocol_error, "a replacement is one worker");
  return std::move(grant->workers.front());
}

Status ManagerClient::release(std::uint64_t lease, Timeout timeout) {
  const auto answer = control::body_of(http_->request("DELETE", lease_path(lease), "", timeout));
  if (answer.ok()) return {};
  switch (answer.error().code()) {
    case Errc::not_found:
    case Errc::lease_expired:
    case Errc::lease_revoked:
      return {};
    default:
      return answer.error();
  }
}

Result<api::FunctionInfo> ManagerClient::deploy(const std::string& name, const std::string& version,
                                                std::string library, Timeout timeout) {
  const std::string digest = to_hex(sha256(std::as_bytes(std::span(library))));
  const auto answer =
      control::body_of(http_->request("PUT", "/v1/functions/" + escape(name) + "/" + escape(version),
                                      std::move(library), timeout, {{"Sublet-Digest", digest}}));
  if (!answer.ok()) return answer.error();
  return api::from_json<api::FunctionInfo>(*answer);
}

Result<std::string> ManagerClient::list(const std::string& what, Timeout timeout) {
  return control::body_of(http_->request("GET", "/v1/" + what, "", timeout));
}

}  // namespace sublet::client
