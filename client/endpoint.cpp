#include "client/endpoint.hpp"

#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "runtime/control/transports.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::client {

namespace {

bool on_one_machine_only(const std::string& transport) {
  return base_name(transport) == "shm";
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
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

/// In the order in which they are tried.
std::vector<std::string> candidates(const Transports& wishes) {
  std::vector<std::string> order = wishes.prefer;
  const std::vector<std::string> others =
      wishes.require.empty() ? std::vector<std::string>{"shm", "verbs", "tcp"} : wishes.require;
  const api::Transports plain = base_names(wishes);
  for (const std::string& name : others) {
    if (!contains(plain.prefer, base_name(name)) && api::allows(plain, base_name(name)))
      order.push_back(name);
  }
  return order;
}

Way way_by(const std::string& transport, const api::GrantedWorker& worker, const Transports& wishes,
           const std::string& this_machine) {
  Way way{.transport = transport};
  if (contains(wishes.prefer, transport)) {
    way.wish = "preferred";
  } else if (contains(wishes.require, transport)) {
    way.wish = "required";
  }
  const auto offered = worker.endpoints.find(base_name(transport));
  if (offered == worker.endpoints.end()) {
    way.obstacle = "the worker does not offer it";
  } else if (on_one_machine_only(transport) && (this_machine.empty() || worker.machine != this_machine)) {
    way.obstacle = "the worker is on another machine";
  } else if (on_one_machine_only(transport) && ::access(offered->second.c_str(), W_OK) != 0) {
    // Two containers of one machine share its boot id but not necessarily their files.
    way.obstacle = "this process cannot open " + offered->second;
  } else {
    way.address = offered->second;
  }
  return way;
}

}  // namespace

void Choice::pass_over(const Way& way, const std::string& why, bool tried) {
  fell_back_ = fell_back_ || tried || !way.wish.empty();
  obstacles_ += (obstacles_.empty() ? "" : "; ") + way.transport + (tried ? " failed: " : " refused: ") + why;
}

std::string Choice::why(const Way& taken) const {
  if (!obstacles_.empty()) return obstacles_;
  return taken.wish.empty() ? "the best that the worker offers" : taken.wish;
}

std::string boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

std::string base_name(const std::string& transport) {
  if (!transport.starts_with("fault:")) return transport;
  std::size_t from = 0;
  for (int part = 0; part < 3 && from != std::string::npos; ++part) from = transport.find(':', from + 1);
  return from == std::string::npos ? transport : base_name(transport.substr(from + 1));
}

api::Transports base_names(const Transports& wishes) {
  const auto plain = [](const std::vector<std::string>& names) {
    std::vector<std::string> all;
    all.reserve(names.size());
    for (const std::string& name : names) all.push_back(base_name(name));
    return all;
  };
  return {plain(wishes.require), plain(wishes.prefer), plain(wishes.forbid)};
}

Status check_here(const Transports& wishes) {
  const std::vector<std::string> here = transport::names();
  const auto is_here = [&](const std::string& name) {
    return contains(here, base_name(name)) ||
           base_name(name).starts_with("fabric:");  // Known when it is opened.
  };
  if (wishes.require.empty() || std::any_of(wishes.require.begin(), wishes.require.end(), is_here)) return {};
  return Error(Errc::unavailable, "the lease requires " + joined(wishes.require) +
                                      ", and this machine can use only " + joined(here) +
                                      "; allow one of these, and see `sublet doctor`");
}

Result<std::vector<Way>> ways_to(const api::GrantedWorker& worker, const Transports& wishes,
                                 const std::string& this_machine) {
  std::vector<Way> ways;
  for (const std::string& transport : candidates(wishes)) {
    Way way = way_by(transport, worker, wishes, this_machine);
    // What nobody asked for is not missed.
    if (!way.address.empty() || !way.wish.empty()) ways.push_back(std::move(way));
  }
  if (std::any_of(ways.begin(), ways.end(), [](const Way& way) { return !way.address.empty(); })) return ways;
  return Error(Errc::not_found, "worker " + std::to_string(worker.worker) + " on node " + worker.node_name +
                                    " offers " + offered_by(worker, this_machine) +
                                    "; this lease allows only: " + joined(candidates(wishes)) +
                                    ". Allow another transport in LeaseOptions::transports");
}

}  // namespace sublet::client
