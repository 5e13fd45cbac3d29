#include <algorithm>

#include "runtime/base/limits.hpp"
#include "runtime/base/log.hpp"
#include "runtime/lease/checks.hpp"
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
  if (refuse_unwritable(responder)) return;
  const Result<api::LeaseRequest> asked = api::from_json<api::LeaseRequest>(request.body);
  if (!asked) return responder.send(asked.error());
  if (Status good = lease::check(*asked); !good) return responder.send(good.error());
  const Result<api::FunctionInfo> function = functions_->resolve(asked->function);
  if (!function) return responder.send(function.error());
  const auto ask = std::make_shared<const lease::Ask>(
      lease::Ask{function->id, function->name + "@" + function->version, *asked});
  grant_or_wait(asked->tenant, asked->wait_ms,
                {.responder = responder,
                 .attempt = [this, ask]() -> Result<api::LeaseGrant> {
                   if (auto still = functions_->info(ask->function); !still) return still.error();
                   return table_.grant(*ask, now());
                 },
                 .explain = [this, ask] { return table_.shortage(*ask, now()); }});
}

void Service::renew_lease(const Request& request, const Responder& responder) {
  if (refuse_unwritable(responder)) return;
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  const Result<api::RenewRequest> asked = api::from_json<api::RenewRequest>(request.body);
  if (!asked) return responder.send(asked.error());
  const Result<api::LeaseGrant> renewed = table_.renew(*id, asked->ttl_ms, now());
  if (!renewed) return responder.send(renewed.error());
  promise_lease(responder, {.body = api::to_json(*renewed)});
}

void Service::replace_worker(const Request& request, const Responder& responder) {
  if (refuse_unwritable(responder)) return;
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  const Result<api::ReplaceRequest> asked = api::from_json<api::ReplaceRequest>(request.body);
  if (!asked) return responder.send(asked.error());
  grant_or_wait("", asked->wait_ms,
                {.responder = responder,
                 .attempt = [this, lease = *id, node = asked->node,
                             worker = asked->worker] { return table_.replace(lease, node, worker, now()); },
                 .explain = [this, lease = *id] { return table_.shortage(lease, now()); },
                 .replacement = true});
}

void Service::release_lease(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  const Result<api::LeaseInfo> ended = table_.end(*id, "released", now());
  if (!ended) return responder.send(ended.error());
  promise_lease(responder, {.body = api::to_json(*ended)});
}

void Service::revoke_lease(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  const Result<api::LeaseInfo> ended = table_.end(*id, "revoked", now());
  if (ended && ended->reason == "revoked") log::info("lease " + std::to_string(*id) + " is revoked");
  if (!ended) return responder.send(ended.error());
  promise_lease(responder, {.body = api::to_json(*ended)});
}

void Service::list_leases(const Request& request, const Responder& responder) {
  lease::LeaseFilter filter;
  for (const auto& [key, value] : request.query) {
    if (key == "tenant") {
      filter.tenant = value;
    } else if (key == "state" && (value == "active" || value == "ended")) {
      filter.state = value;
    } else if (key == "before" || key == "limit") {
      const Result<std::uint64_t> number = parse_number(value, key.c_str());
      if (!number) return responder.send(number.error());
      if (key == "before") filter.before = *number;
      if (key == "limit") filter.limit = std::min<std::uint64_t>(*number, limits::lease_list_max);
    } else {
      return responder.send(
          Error(Errc::invalid_argument, "the query takes tenant, state (active or ended), before and limit"));
    }
  }
  responder.send({.body = api::to_json(table_.leases(filter))});
}

void Service::show_lease(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  send_json(responder, table_.lease(*id));
}

}  // namespace sublet::manager
