#include "runtime/base/limits.hpp"
#include "runtime/base/log.hpp"
#include "runtime/manager/requests.hpp"
#include "runtime/manager/service.hpp"

namespace sublet::manager {
namespace {

std::string name_of(const api::FunctionInfo& function) {
  return function.name + "@" + function.version;
}

}  // namespace

void Service::add_function_routes(std::vector<control::Route>& routes) {
  add(routes, "GET", "/v1/functions", 0, &Service::list_functions);
  add(routes, "GET", "/v1/functions/by-id/{id}", 0, &Service::fetch_function);
  add(routes, "PUT", "/v1/functions/{name}/{version}", limits::function_bytes_max, &Service::deploy_function);
  add(routes, "GET", "/v1/functions/{name}/{version}", 0, &Service::show_function);
  add(routes, "DELETE", "/v1/functions/{name}/{version}", 0, &Service::remove_function);
}

void Service::deploy_function(const Request& request, const Responder& responder) {
  const auto digest = request.headers.find("sublet-digest");
  const Result<FunctionStore::Deployed> deployed =
      functions_->deploy(request.parameters.at("name"), request.parameters.at("version"),
                         digest != request.headers.end() ? digest->second : "", request.body);
  if (!deployed) return responder.send(deployed.error());
  if (deployed->fresh) {
    log::info("deployed " + name_of(deployed->info) + " as function " + std::to_string(deployed->info.id));
    table_.announce_function("fetch_function", deployed->info.id);
  }
  responder.send({.status = deployed->fresh ? 201U : 200U, .body = api::to_json(deployed->info)});
}

void Service::show_function(const Request& request, const Responder& responder) {
  send_json(responder, functions_->find(request.parameters.at("name"), request.parameters.at("version")));
}

void Service::remove_function(const Request& request, const Responder& responder) {
  const Result<api::FunctionInfo> function =
      functions_->find(request.parameters.at("name"), request.parameters.at("version"));
  if (!function) return responder.send(function.error());
  if (table_.uses_function(function->id)) {
    return responder.send(
        Error(Errc::busy, "active leases use " + name_of(*function) + "; release them first"));
  }
  if (Status removed = functions_->remove(function->id); !removed) return responder.send(removed.error());
  log::info("removed " + name_of(*function));
  table_.announce_function("drop_function", function->id);
  responder.send({.status = 204});
}

void Service::list_functions(const Request&, const Responder& responder) {
  responder.send({.body = api::to_json(functions_->list())});
}

void Service::fetch_function(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  if (*id > UINT32_MAX) return responder.send(Error(Errc::not_found, "no function has this number"));
  const Result<api::FunctionInfo> function = functions_->info(static_cast<std::uint32_t>(*id));
  if (!function) return responder.send(function.error());
  Result<std::shared_ptr<const std::string>> bytes = functions_->bytes(function->id);
  if (!bytes) return responder.send(bytes.error());
  responder.send({.content_type = "application/octet-stream",
                  .headers = {{"Sublet-Digest", function->digest}},
                  .shared_body = *bytes});
}

}  // namespace sublet::manager
