#include "runtime/base/limits.hpp"
#include "runtime/base/log.hpp"
#include "runtime/manager/requests.hpp"
#include "runtime/manager/service.hpp"

namespace sublet::manager {

void Service::add_lease_routes(std::vector<control::Route>& routes) {
  add(routes, "POST", "/v1/leases", limits::json_body_bytes_max, &Service::grant_lease);
  add(routes, "GET", "/v1/leases", 0, &Service::list_leases);
  add(routes, "GET", "/v1/leases/{id}", 0, &Service::show_lease);
  add(routes, "DELETE", "/v1/leases/{id}", 0, &Service::release_lease);
  add(routes, "POST", "/v1/leases/{id}/renew", limits::json_body_bytes_max, &Service::renew_lease);
  add(routes, "POST", "/v1/leases/{id}/replace", limits::json_body_bytes_max, &Service::replace_worker);
  add(routes, "POST", "/v1/leases/{id}/revoke", limits::json_body_bytes_max, &Service::revoke_lease);
}

void Service::grant_lease(const Request& request, const Responder& responder) {
  const Result<api::LeaseRequest> asked = api::from_json<api::LeaseRequest>(request.body);
  if (!asked) return responder.send(asked.error());
  const Result<api::FunctionInfo> function = functions_->resolve(asked->function);
  if (!function) return responder.send(function.error());
  const lease::Ask ask{function->id, function->name + "@" + function->version, *asked};
  grant_or_wait(responder, asked->wait_ms, [this, ask]() -> Result<api::LeaseGrant> {
    if (auto still = functions_->info(ask.function); !still) return still.error();
    return table_.grant(ask, now());
  });
}

void Service::renew_lease(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  const Result<api::RenewRequest> asked = api::from_json<api::RenewRequest>(request.body);
  if (!asked) return responder.send(asked.error());
  send_json(responder, table_.renew(*id, asked->ttl_ms, now()));
}

void Service::replace_worker(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  const Result<api::ReplaceRequest> asked = api::from_json<api::ReplaceRequest>(request.body);
  if (!asked) return responder.send(asked.error());
  grant_or_wait(responder, asked->wait_ms, [this, lease = *id, node = asked->node, worker = asked->worker] {
    return table_.replace(lease, node, worker, now());
  });
}

void Service::release_lease(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  send_json(responder, table_.end(*id, "released"));
}

void Service::revoke_lease(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  const Result<api::LeaseInfo> ended = table_.end(*id, "revoked");
  if (ended && ended->reason == "revoked") log::info("lease " + std::to_string(*id) + " is revoked");
  send_json(responder, ended);
}

void Service::list_leases(const Request&, const Responder& responder) {
  responder.send({.body = api::to_json(table_.leases())});
}

void Service::show_lease(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  send_json(responder, table_.lease(*id));
}

}  // namespace sublet::manager
