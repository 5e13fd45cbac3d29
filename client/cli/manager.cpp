#include "client/cli/manager.hpp"

#include <algorithm>
#include <span>
#include <utility>

#include "client/manager_client.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/base/digest.hpp"

namespace sublet::cli {

Unreachable::Unreachable(const std::string& url, const Error& error)
    : Exception(Error(error.code(), error.detail().substr(0, error.detail().find("; check that")) +
                                        "; is sublet-manager running at " + url +
                                        "? Name another address with --manager or SUBLET_MANAGER")) {}

Manager::Manager(std::string url, Timeout timeout) : url_(std::move(url)), timeout_(timeout) {
  auto http = control::HttpClient::create(url_);
  if (!http) throw Usage(http.error().detail());
  http_ = *std::move(http);
}

std::string Manager::ask(std::string_view method, const std::string& path, std::string body, Timeout timeout,
                         const control::Pairs& headers) {
  Result<control::HttpAnswer> answer = http_->request(method, path, std::move(body), timeout, headers);
  if (!answer) throw Unreachable(url_, answer.error());
  return control::body_of(std::move(answer)).value();
}

std::string Manager::get(const std::string& path) {
  return ask("GET", path, "", timeout_);
}
std::string Manager::post(const std::string& path) {
  return ask("POST", path, "", timeout_);
}
void Manager::remove(const std::string& path) {
  (void)ask("DELETE", path, "", timeout_);
}

api::FunctionInfo Manager::deploy(const std::string& name, const std::string& version, std::string library,
                                  Timeout timeout) {
  const std::string digest = to_hex(sha256(std::as_bytes(std::span(library))));
  const std::string path = "/v1/functions/" + client::escape(name) + "/" + client::escape(version);
  return parse<api::FunctionInfo>(ask("PUT", path, std::move(library), timeout, {{"Sublet-Digest", digest}}));
}

std::string Manager::get_newer(const std::string& path) {
  try {
    return get(path);
  } catch (const Exception& error) {
    if (error.code() == Errc::not_found) throw_older(path);
    throw;
  }
}

api::NodeInfo Manager::node(const std::string& named) {
  const api::Nodes all = read<api::Nodes>("/v1/nodes");
  const api::NodeInfo* found = nullptr;
  const api::NodeInfo* by_id = nullptr;
  std::vector<std::string> known;
  for (const api::NodeInfo& node : all.nodes) {
    known.push_back(node.name);
    if (std::to_string(node.node) == named) by_id = &node;
    if (node.name == named && (found == nullptr || found->state == "lost")) found = &node;
  }
  if (found == nullptr) found = by_id;
  if (found != nullptr) return *found;
  const std::string meant = suggestion(named, known);
  throw Exception(Error(Errc::not_found, "there is no node '" + named + "'" +
                                             (meant.empty() ? "; `sublet nodes` lists them" : meant)));
}

api::NodeInfo Manager::order(const api::NodeInfo& node, const std::string& order) {
  const std::string path = "/v1/nodes/" + std::to_string(node.node);
  try {
    return parse<api::NodeInfo>(post(path + "/" + order));
  } catch (const Exception& error) {
    if (error.code() != Errc::not_found) throw;
    (void)get(path);  // Throws when it is the node that is not there.
    if (node.state == "lost") throw;
    throw_older(path + "/" + order);
  }
}

void Manager::throw_unless_deployed(const std::string& named) {
  std::vector<std::string> known;
  for (const api::FunctionInfo& function : read<api::Functions>("/v1/functions").functions) {
    known.push_back(function.name + "@" + function.version);
    if (known.back() == named) return;
  }
  const std::string meant = suggestion(named, known);
  throw Exception(Error(Errc::not_found, "no function " + named + " is deployed" +
                                             (meant.empty() ? "; `sublet functions` lists them" : meant)));
}

std::uint64_t Manager::time_ms() {
  const Result<api::Health> health = api::from_json<api::Health>(get("/healthz"));
  return health ? health->time_ms : unix_time_ms();
}

void Manager::throw_unknown(const Error& error) const {
  throw Exception(
      Error(Errc::version_mismatch, "the manager at " + url_ + " answers what this command does not know (" +
                                        error.detail() + "); use a sublet of the manager's version"));
}

void Manager::throw_older(const std::string& path) const {
  throw Exception(Error(Errc::version_mismatch,
                        "the manager at " + url_ + " is older than this command: it has no " +
                            path.substr(0, path.find('?')) + "; update it, or use a sublet of its version"));
}

}  // namespace sublet::cli
