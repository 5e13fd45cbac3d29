#include <set>
#include <span>

#include "runtime/base/digest.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/manager/requests.hpp"
#include "runtime/manager/service.hpp"

namespace sublet::manager {

void Service::add_node_routes(std::vector<control::Route>& routes) {
  add(routes, "POST", "/v1/nodes", limits::json_body_bytes_max, &Service::register_node);
  add(routes, "GET", "/v1/nodes", 0, &Service::list_nodes);
  add(routes, "GET", "/v1/nodes/{id}", 0, &Service::show_node);
  add(routes, "DELETE", "/v1/nodes/{id}", 0, &Service::remove_node);
  add(routes, "POST", "/v1/nodes/{id}/heartbeat", limits::json_body_bytes_max, &Service::heartbeat);
  add(routes, "GET", "/v1/nodes/{id}/commands", 0, &Service::commands);
  add(routes, "POST", "/v1/nodes/{id}/drain", limits::json_body_bytes_max, &Service::drain_node);
  add(routes, "POST", "/v1/nodes/{id}/undrain", limits::json_body_bytes_max, &Service::undrain_node);
  add(routes, "POST", "/v1/nodes/{id}/cordon", limits::json_body_bytes_max, &Service::cordon_node);
  add(routes, "POST", "/v1/nodes/{id}/uncordon", limits::json_body_bytes_max, &Service::uncordon_node);
}

void Service::register_node(const Request& request, const Responder& responder) {
  if (refuse_unwritable(responder)) return;
  const Result<api::NodeRegistration> about = api::from_json<api::NodeRegistration>(request.body);
  if (!about) return responder.send(about.error());
  SecretKey key{};
  fill_random(key);
  const Result<lease::NodeId> id = table_.register_node(*about, key, now());
  if (!id) return responder.send(id.error());
  obey_slurm(*id);
  for (const api::FunctionInfo& function : functions_->list().functions) {
    table_.announce_function_to(*id, "fetch_function", function.id);
  }
  const api::NodeRegistered answer{
      *id, to_hex(key), static_cast<std::uint64_t>(limits::node_heartbeat.count()), lease::to_ms(now())};
  promise(responder, {.status = 201, .body = api::to_json(answer)},
          [this, node = *id] { static_cast<void>(table_.remove_node(node, now())); });
}

void Service::heartbeat(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  Result<api::Heartbeat> said = api::from_json<api::Heartbeat>(request.body);
  if (!said) return responder.send(said.error());
  const Result<bool> resend = table_.heartbeat(*id, *said, now());
  if (!resend) return responder.send(resend.error());
  drop_unknown(*id, *said);
  control::HttpReply reply{.body = api::to_json(api::HeartbeatAnswer{lease::to_ms(now()), *resend})};
  // The node forgets what it has accounted for once it is answered.
  if (said->usage.empty() && said->ended.empty()) return responder.send(std::move(reply));
  if (refuse_unwritable(responder)) return;
  const api::NodeRegistration& from = table_.state().at(*id).about;
  for (const api::WorkerUsage& used : said->usage)
    pending_.usage.push_back({{from.name, from.machine}, used});
  if (waiters_.empty()) return promise_soon(responder, std::move(reply));
  promise(responder, std::move(reply));  // Its next heartbeat may bring the worker that they wait for.
}

/// A manager that was started again knows no command that its predecessor had not delivered.
void Service::drop_unknown(lease::NodeId node, const api::Heartbeat& said) {
  std::set<std::uint32_t> unknown;
  for (const api::WorkerInfo& worker : said.ready) {
    if (worker.function != 0 && !functions_->info(worker.function)) unknown.insert(worker.function);
  }
  for (const std::uint32_t function : unknown) table_.announce_function_to(node, "drop_function", function);
}

void Service::commands(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  const auto after_text = request.query.find("after");
  const Result<std::uint64_t> after =
      parse_number(after_text != request.query.end() ? after_text->second : "0", "after");
  if (!after) return responder.send(after.error());
  const Result<api::Commands> waiting = table_.commands_after(*id, *after);
  if (!waiting) return responder.send(waiting.error());
  if (const auto older = polls_.find(*id); older != polls_.end()) {
    const Responder superseded = older->second.responder;
    polls_.erase(older);
    superseded.send({.body = api::to_json(api::Commands{})});
  }
  if (!waiting->commands.empty()) return responder.send({.body = api::to_json(*waiting)});
  const std::uint64_t number = next_number_++;
  polls_.insert_or_assign(*id, Poll{number, responder, *after});
  poll_ends_.emplace_back(steady_() + limits::command_wait_max, *id, number);
  responder.on_gone([this, node = *id, number] {
    const auto poll = polls_.find(node);
    if (poll != polls_.end() && poll->second.number == number) polls_.erase(poll);
  });
}

void Service::remove_node(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  if (Status removed = table_.remove_node(*id, now()); !removed) return responder.send(removed.error());
  promise(responder, {.status = 204});
}

void Service::list_nodes(const Request&, const Responder& responder) {
  responder.send({.body = api::to_json(table_.nodes(now()))});
}

void Service::show_node(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  send_json(responder, table_.node(*id, now()));
}

void Service::drain_node(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  const Result<api::NodeInfo> node = table_.set_draining(*id, true, now());
  if (!node) return responder.send(node.error());
  promise(responder, {.body = api::to_json(*node)});
}

void Service::undrain_node(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  const Result<api::NodeInfo> node = table_.set_draining(*id, false, now());
  if (!node) return responder.send(node.error());
  promise(responder, {.body = api::to_json(*node)});
}

void Service::cordon_node(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  const Result<api::NodeInfo> node = table_.set_cordoned(*id, true, now());
  if (!node) return responder.send(node.error());
  promise(responder, {.body = api::to_json(*node)});
}

void Service::uncordon_node(const Request& request, const Responder& responder) {
  const Result<std::uint64_t> id = id_of(request);
  if (!id) return responder.send(id.error());
  const Result<api::NodeInfo> node = table_.set_cordoned(*id, false, now());
  if (!node) return responder.send(node.error());
  promise(responder, {.body = api::to_json(*node)});
}

}  // namespace sublet::manager
