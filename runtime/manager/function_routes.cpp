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
  if (refuse_unwritable(responder)) return;
  const auto digest = request.headers.find("sublet-digest");
  const Result<FunctionStore::Upload> upload =
      functions_->begin(request.parameters.at("name"), request.parameters.at("version"),
                        digest != request.headers.end() ? digest->second : "", request.body.size());
  if (!upload) return responder.send(upload.error());
  if (upload->known) return promise(responder, {.body = api::to_json(upload->info)});
  const auto file = functions_->file_of(upload->info.id);
  files_.post([this, responder, file, info = upload->info,
               bytes = std::make_shared<const std::string>(request.body)] {
    Status written = FunctionStore::write(file, info.digest, *bytes);
    loop_.post([this, responder, info, written = std::move(written)] {
      finish_deploy(info, written, responder);
      settle();
    });
  });
}

void Service::finish_deploy(const api::FunctionInfo& info, const Status& written,
                            const Responder& responder) {
  if (!written) {
    functions_->abandon(info);
    return responder.send(written.error());
  }
  const bool fresh = !functions_->info(info.id).ok();  // Otherwise its lost bytes are back.
  functions_->finish(info);
  pending_.functions.push_back(info);
  log::info("deployed " + name_of(info) + " as function " + std::to_string(info.id));
  promise(
      responder, {.status = 201, .body = api::to_json(info)},
      [this, id = info.id, fresh] {
        if (!fresh) return;
        forget_function(id);
        static_cast<void>(functions_->remove(id));
        functions_->drop_bytes(id);
      },
      // Only now: after a manager that died before it was written, another function has this number.
      [this, id = info.id] {
        if (functions_->info(id)) table_.announce_function("fetch_function", id);
      });
}

/// In the state that is to be written.
void Service::forget_function(std::uint32_t id) {
  std::erase_if(pending_.functions, [id](const api::FunctionInfo& function) { return function.id == id; });
  pending_.functions_gone.push_back(id);
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
  if (refuse_unwritable(responder)) return;
  if (Status removed = functions_->remove(function->id); !removed) return responder.send(removed.error());
  forget_function(function->id);
  log::info("removed " + name_of(*function));
  // Bytes and copies go when it is written: a manager that dies before still has the function. If it cannot
  // be written now it goes with the next transaction that can, and the bytes at the next start.
  const auto drop = [this, id = function->id] { table_.announce_function("drop_function", id); };
  promise(responder, {.status = 204}, drop, [this, drop, id = function->id] {
    functions_->drop_bytes(id);
    drop();
  });
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
  const auto send = [digest = function->digest](const Responder& to,
                                                const Result<std::shared_ptr<const std::string>>& bytes) {
    if (!bytes) return to.send(bytes.error());
    to.send({.content_type = "application/octet-stream",
             .headers = {{"Sublet-Digest", digest}},
             .shared_body = *bytes});
  };
  if (const auto bytes = cached_[function->id].lock()) return send(responder, bytes);
  readers_[function->id].push_back(responder);
  if (readers_[function->id].size() > 1) return;  // One reads for all.
  files_.post(
      [this, send, id = function->id, file = functions_->file_of(function->id), size = function->bytes] {
        const Result<std::shared_ptr<const std::string>> bytes = FunctionStore::read(file, size);
        loop_.post([this, send, id, bytes] {
          if (bytes) cached_[id] = *bytes;
          for (const Responder& reader : std::exchange(readers_[id], {})) send(reader, bytes);
          readers_.erase(id);
        });
      });
}

}  // namespace sublet::manager
