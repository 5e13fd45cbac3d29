#include "runtime/transport/fabric/endpoint.hpp"

#include <netinet/in.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "runtime/base/digest.hpp"
#include "runtime/transport/fabric/queue_watch.hpp"

namespace sublet::transport::fabric {
namespace {

// More wait in a list of the provider's. A long ring would pass through the caches with every call.
constexpr std::size_t completions_max = 256;
constexpr std::size_t event_data_max = 512;
constexpr std::chrono::milliseconds event_wait{100};  ///< Then it is looked whether anyone still waits.

/// A copy of the template without addresses, or with one of them.
Info make_info(const Domain& domain, const gate::Address& address, bool passive) {
  const Library& library = *domain.library;
  Info info(library.dupinfo(domain.info.get()), FreeInfo{&library});
  if (!info) return info;
  std::free(std::exchange(info->src_addr, nullptr));
  std::free(std::exchange(info->dest_addr, nullptr));
  info->src_addrlen = info->dest_addrlen = 0;
  void* copy = std::malloc(address.length);
  if (copy == nullptr) return Info(nullptr, FreeInfo{&library});
  std::memcpy(copy, &address.storage, address.length);
  (passive ? info->src_addr : info->dest_addr) = copy;
  (passive ? info->src_addrlen : info->dest_addrlen) = address.length;
  info->addr_format = address.storage.ss_family == AF_INET6 ? FI_SOCKADDR_IN6 : FI_SOCKADDR_IN;
  return info;
}

bool is_internet(std::uint32_t format) noexcept {
  return format == FI_SOCKADDR || format == FI_SOCKADDR_IN || format == FI_SOCKADDR_IN6;
}

Result<Handle<fid_eq>> open_events(const Domain& domain) {
  fi_eq_attr attributes{};
  attributes.wait_obj = FI_WAIT_UNSPEC;
  fid_eq* events = nullptr;
  const int code = ::fi_eq_open(domain.fabric.get(), &attributes, &events, nullptr);
  if (code != 0) return domain.library->failed("fi_eq_open", code);
  return Handle<fid_eq>(events);
}

Status open_queue(Endpoint& made) {
  fi_cq_attr attributes{};
  attributes.size = completions_max;
  attributes.format = FI_CQ_FORMAT_DATA;
  attributes.wait_obj = made.wait;
  fid_cq* completions = nullptr;
  if (int code = ::fi_cq_open(made.domain->domain.get(), &attributes, &completions, nullptr); code != 0) {
    return made.domain->library->failed("fi_cq_open", code);
  }
  made.completions.reset(completions);
  return {};
}

/// The endpoint itself, with its queue and `other`: what tells of connections, or knows addresses.
Status open_bound(Endpoint& made, fi_info* info, fid& other) {
  const Library& library = *made.domain->library;
  fid_ep* endpoint = nullptr;
  if (int code = ::fi_endpoint(made.domain->domain.get(), info, &endpoint, nullptr); code != 0) {
    return library.failed("fi_endpoint", code);
  }
  made.endpoint.reset(endpoint);
  if (int code = ::fi_ep_bind(endpoint, &other, 0); code != 0) return library.failed("fi_ep_bind", code);
  for (const std::uint64_t direction :
       {std::uint64_t{FI_TRANSMIT | FI_SELECTIVE_COMPLETION}, std::uint64_t{FI_RECV}}) {
    if (int code = ::fi_ep_bind(endpoint, &made.completions->fid, direction); code != 0) {
      return library.failed("fi_ep_bind", code);
    }
  }
  if (int code = ::fi_enable(endpoint); code != 0) return library.failed("fi_enable", code);
  return {};
}

Result<Endpoint> make_endpoint(const std::shared_ptr<Domain>& domain, fi_info* info) {
  const Library& library = *domain->library;
  Endpoint made;
  made.domain = domain;
  Result<Handle<fid_eq>> events = open_events(*domain);
  if (!events) return events.error();
  made.events = std::move(*events);
  made.wait = wait_object(library);
  if (Status opened = open_queue(made); !opened) return opened.error();
  if (Status opened = open_bound(made, info, made.events->fid); !opened) return opened.error();
  return made;
}

struct Event {
  std::uint32_t type = 0;
  fi_info* info = nullptr;  ///< Of a request: the caller's to free.
  std::vector<std::byte> data;
};

/// Waits for one event. Blocks.
Result<Event> next_event(const Library& library, fid_eq* events, const Patience& patience) {
  constexpr std::size_t front = sizeof(fi_eq_cm_entry);
  alignas(fi_eq_cm_entry) std::array<std::byte, front + event_data_max> buffer{};
  while (true) {
    Event event;
    const ssize_t got = ::fi_eq_sread(events, &event.type, buffer.data(), buffer.size(),
                                      static_cast<int>(event_wait.count()), 0);
    if (got >= static_cast<ssize_t>(front)) {
      // The pointer is what is copied. NOLINTNEXTLINE(bugprone-sizeof-expression)
      std::memcpy(&event.info, buffer.data() + offsetof(fi_eq_cm_entry, info), sizeof(event.info));
      event.data.assign(buffer.begin() + front, buffer.begin() + got);
      return event;
    }
    if (got == -FI_EAVAIL) {
      fi_eq_err_entry error{};
      if (::fi_eq_readerr(events, &error, 0) < 0) return Error(Errc::unavailable, "the handshake failed");
      return Error(Errc::unavailable, std::string("the handshake failed: ") + library.strerror(error.err));
    }
    if (got < 0 && got != -FI_EAGAIN && got != -FI_ETIMEDOUT && got != -FI_EINTR) {
      return library.failed("fi_eq_sread", got);
    }
    if (patience.cancelled.load(std::memory_order_relaxed) || SteadyClock::now() > patience.deadline) {
      return Error(Errc::timeout, "the peer did not finish the handshake in time");
    }
  }
}

Status wait_connected(const Endpoint& endpoint, const Patience& patience) {
  Result<Event> event = next_event(*endpoint.domain->library, endpoint.events.get(), patience);
  if (!event) return event.error();
  if (event->type != FI_CONNECTED) return Error(Errc::unavailable, "the peer left during the handshake");
  return {};
}

}  // namespace

Result<std::shared_ptr<Domain>> Domain::open(const Library& library, std::string name, Info info) {
  if (!info) return Error(Errc::out_of_memory, "libfabric has no memory for a domain");
  auto opened = std::make_shared<Domain>();
  opened->library = &library;
  opened->name = std::move(name);
  opened->info = std::move(info);
  fid_fabric* fabric = nullptr;
  if (int code = library.open_fabric(opened->info->fabric_attr, &fabric, nullptr); code != 0) {
    return library.failed("fi_fabric", code);
  }
  opened->fabric.reset(fabric);
  fid_domain* domain = nullptr;
  if (int code = ::fi_domain(fabric, opened->info.get(), &domain, nullptr); code != 0) {
    return library.failed("fi_domain", code);
  }
  opened->domain.reset(domain);
  return opened;
}

Result<RemoteRegion> Domain::register_region(const memory::Region& region) {
  std::uint64_t key = 0;
  const std::size_t key_bytes = std::min(info->domain_attr->mr_key_size, sizeof(key));
  fill_random(std::as_writable_bytes(std::span(&key, 1)).first(key_bytes));
  fid_mr* registered = nullptr;
  const int code = ::fi_mr_reg(domain.get(), region.data(), region.size(), FI_WRITE | FI_REMOTE_WRITE, 0, key,
                               0, &registered, nullptr);
  if (code != 0) return library->failed("fi_mr_reg", code);
  Handle<fid_mr> handle(registered);
  key = ::fi_mr_key(registered);
  regions[key] = {region.data(), region.size(), std::move(handle)};
  const bool by_address = (info->domain_attr->mr_mode & FI_MR_VIRT_ADDR) != 0;
  return RemoteRegion{by_address ? reinterpret_cast<std::uint64_t>(region.data()) : 0, key, region.size()};
}

Capabilities capabilities_of(const Domain& domain) noexcept {
  constexpr std::uint64_t length_max = UINT32_MAX;  // The data word carries the length in 32 bits.
  Capabilities capabilities;
  capabilities.inline_bytes = domain.info->tx_attr->inject_size;
  capabilities.write_bytes_max = std::min<std::uint64_t>(domain.info->ep_attr->max_msg_size, length_max);
  capabilities.progress_needs_polling = true;
  return capabilities;
}

Result<std::shared_ptr<Listener>> Listener::open(std::shared_ptr<Domain> domain, gate::Address local) {
  const Library& library = *domain->library;
  set_port(local, 0);
  const Info info = make_info(*domain, local, true);
  if (!info) return Error(Errc::out_of_memory, "libfabric has no memory for an endpoint");
  auto listener = std::make_shared<Listener>();
  listener->domain = std::move(domain);
  Result<Handle<fid_eq>> events = open_events(*listener->domain);
  if (!events) return events.error();
  listener->events = std::move(*events);
  fid_pep* endpoint = nullptr;
  if (int code = ::fi_passive_ep(listener->domain->fabric.get(), info.get(), &endpoint, nullptr); code != 0) {
    return library.failed("fi_passive_ep", code);
  }
  listener->endpoint.reset(endpoint);
  if (int code = ::fi_pep_bind(endpoint, &listener->events->fid, 0); code != 0) {
    return library.failed("fi_pep_bind", code);
  }
  if (int code = ::fi_listen(endpoint); code != 0) return library.failed("fi_listen", code);
  gate::Address bound;
  std::size_t length = sizeof(bound.storage);
  if (int code = ::fi_getname(&endpoint->fid, &bound.storage, &length); code != 0) {
    return library.failed("fi_getname", code);
  }
  listener->port = port_of(bound);
  return listener;
}

Result<Endpoint> accept_one(Listener& listener, const Nonce& nonce, const Patience& patience) {
  const Library& library = *listener.domain->library;
  while (true) {
    Result<Event> event = next_event(library, listener.events.get(), patience);
    if (!event) return event.error();
    if (event->type != FI_CONNREQ) continue;
    const Info info(event->info, FreeInfo{&library});
    if (!equal_constant_time(event->data, nonce)) {
      ::fi_reject(listener.endpoint.get(), info->handle, nullptr, 0);
      continue;
    }
    Result<Endpoint> made = make_endpoint(listener.domain, info.get());
    if (!made) return made;
    if (int code = ::fi_accept(made->endpoint.get(), nullptr, 0); code != 0)
      return library.failed("fi_accept", code);
    if (Status connected = wait_connected(*made, patience); !connected) return connected.error();
    return made;
  }
}

Result<Endpoint> connect_one(const std::shared_ptr<Domain>& domain, const gate::Address& peer,
                             const Nonce& nonce, const Patience& patience) {
  const Library& library = *domain->library;
  const Info info = make_info(*domain, peer, false);
  if (!info) return Error(Errc::out_of_memory, "libfabric has no memory for an endpoint");
  Result<Endpoint> made = make_endpoint(domain, info.get());
  if (!made) return made;
  const int code = ::fi_connect(made->endpoint.get(), &peer.storage, nonce.data(), nonce.size());
  if (code != 0) return Error(Errc::unavailable, library.failed("fi_connect", code).detail());
  if (Status connected = wait_connected(*made, patience); !connected) return connected.error();
  return made;
}

Result<Endpoint> open_unconnected(const std::shared_ptr<Domain>& domain, const gate::Address& local) {
  const Library& library = *domain->library;
  gate::Address any_port = local;
  set_port(any_port, 0);
  const Info info = is_internet(domain->info->addr_format)
                        ? make_info(*domain, any_port, true)
                        : Info(library.dupinfo(domain->info.get()), FreeInfo{&library});
  if (!info) return Error(Errc::out_of_memory, "libfabric has no memory for an endpoint");
  Endpoint made;
  made.domain = domain;
  made.wait = FI_WAIT_FD;
  if (Status opened = open_queue(made); !opened) return opened.error();
  fi_av_attr attributes{};
  attributes.type = FI_AV_UNSPEC;
  fid_av* peers = nullptr;
  if (int code = ::fi_av_open(domain->domain.get(), &attributes, &peers, nullptr); code != 0) {
    return library.failed("fi_av_open", code);
  }
  made.peers.reset(peers);
  if (Status opened = open_bound(made, info.get(), peers->fid); !opened) return opened.error();
  return made;
}

Result<Name> name_of(const Endpoint& endpoint) {
  Name name{std::vector<std::byte>(Name::bytes_max)};
  std::size_t length = name.bytes.size();
  if (int code = ::fi_getname(&endpoint.endpoint->fid, name.bytes.data(), &length); code != 0) {
    return endpoint.domain->library->failed("fi_getname", code);
  }
  name.bytes.resize(length);
  return name;
}

Status set_peer(Endpoint& endpoint, const Name& name, const gate::Address& host) {
  const Result<Name> own = name_of(endpoint);
  if (!own) return own.error();
  const Error damaged(Errc::protocol_error, "the peer's address on the fabric is damaged");
  if (name.bytes.size() != own->bytes.size()) return damaged;
  std::array<std::byte, std::max(Name::bytes_max, sizeof(sockaddr_storage))> address{};
  std::copy(name.bytes.begin(), name.bytes.end(), address.begin());
  if (is_internet(endpoint.domain->info->addr_format)) {
    gate::Address believed = host;
    gate::Address told;
    std::memcpy(&told.storage, address.data(), sizeof(told.storage));
    if (told.storage.ss_family != host.storage.ss_family || name.bytes.size() < host.length) return damaged;
    set_port(believed, port_of(told));
    std::memcpy(address.data(), &believed.storage, sizeof(believed.storage));
  }
  const int count = ::fi_av_insert(endpoint.peers.get(), address.data(), 1, &endpoint.peer, 0, nullptr);
  if (count == 1) return {};
  return Error(Errc::unavailable, "libfabric does not take the peer's address");
}

void set_port(gate::Address& address, std::uint16_t port) noexcept {
  if (address.storage.ss_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in*>(&address.storage)->sin_port = htons(port);
  }
}

std::uint16_t port_of(const gate::Address& address) noexcept {
  if (address.storage.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_port);
  }
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_port);
}

}  // namespace sublet::transport::fabric
