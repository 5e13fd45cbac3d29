#include "client/endpoint.hpp"

#include <unistd.h>

#include <fstream>

namespace sublet::client {

namespace {

bool on_one_machine_only(const std::string& transport) {
  return base_name(transport) == "shm";
}

std::string offered_by(const api::GrantedWorker& worker, const std::string& this_machine) {
  std::string text;
  for (const auto& [transport, address] : worker.endpoints) {
    if (!text.empty()) text += ", ";
    text.append(transport).append(" at ").append(address);
    if (!on_one_machine_only(transport)) continue;
    text += worker.machine == this_machine ? "" : " on another machine";
  }
  return text.empty() ? "nothing" : text;
}

}  // namespace

std::string boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

std::string base_name(const std::string& transport) {
  if (!transport.starts_with("fault:")) return transport;
  const std::size_t rules = transport.find(':', transport.find(':') + 1) + 1;
  return base_name(transport.substr(transport.find(':', rules) + 1));
}

Result<std::vector<Endpoint>> endpoints_to(const api::GrantedWorker& worker,
                                           const std::vector<std::string>& allowed,
                                           const std::string& this_machine) {
  const bool same_machine = !this_machine.empty() && worker.machine == this_machine;
  const std::vector<std::string>& order = allowed.empty() ? std::vector<std::string>{"shm", "tcp"} : allowed;
  std::vector<Endpoint> ways;
  std::string names;
  for (const std::string& transport : order) {
    names += (names.empty() ? "" : ", ") + transport;
    const auto offered = worker.endpoints.find(base_name(transport));
    if (offered == worker.endpoints.end()) continue;
    const std::string& address = offered->second;
    if (on_one_machine_only(transport)) {
      // Two containers of one machine share its boot id but not necessarily their files.
      if (!same_machine || ::access(address.c_str(), W_OK) != 0) continue;
    }
    ways.push_back({transport, address});
  }
  if (!ways.empty()) return ways;
  return Error(Errc::not_found, "worker " + std::to_string(worker.worker) + " on node " + worker.node_name +
                                    " offers " + offered_by(worker, this_machine) +
                                    "; this lease allows only: " + names +
                                    ". Allow another transport in LeaseOptions::transports");
}

}  // namespace sublet::client
