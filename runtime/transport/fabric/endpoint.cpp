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
Info make_info(const Library& library, const gate::Address& address, bool passive) {
  Info info(library.dupinfo(library.tcp), FreeInfo{&library});
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

Result<Handle<fid_eq>> open_events(const Domain& domain) {
  fi_eq_attr attributes{};
  attributes.wait_obj = FI_WAIT_UNSPEC;
  fid_eq* events = nullptr;
  const int code = ::fi_eq_open(domain.fabric.get(), &attributes, &events, nullptr);
  if (code != 0) return domain.library->failed("fi_eq_open", code);
  return Handle<fid_eq>(events);
}

Result<Endpoint> make_endpoint(const std::shared_ptr<Domain>& domain, fi_info* info) {
  const Library& library = *domain->library;
  Endpoint made;
  made.domain = domain;
  Result<Handle<fid_eq>> events = open_events(*domain);
  if (!events) return events.error();
  made.events = std::move(*events);
  fi_cq_attr attributes{};
  attributes.size = completions_max;
  attributes.format = FI_CQ_FORMAT_DATA;
  attributes.wait_obj = wait_object(library);
  fid_cq* completions = nullptr;
  if (int code = ::fi_cq_open(domain->domain.get(), &attributes, &completions, nullptr); code != 0) {
    return library.failed("fi_cq_open", code);
  }
  made.completions.reset(completions);
  fid_ep* endpoint = nullptr;
  if (int code = ::fi_endpoint(domain->domain.get(), info, &endpoint, nullptr); code != 0) {
    return library.failed("fi_endpoint", code);
  }
  made.endpoint.reset(endpoint);
  if (int code = ::fi_ep_bind(endpoint, &made.events->fid, 0); code != 0)
    return library.failed("fi_ep_bind", code);
  for (const std::uint64_t direction :
       {std::uint64_t{FI_TRANSMIT | FI_SELECTIVE_COMPLETION}, std::uint64_t{FI_RECV}}) {
    if (int code = ::fi_ep_bind(endpoint, &completions->fid, direction); code != 0) {
      return library.failed("fi_ep_bind", code);
    }
  }
  if (int code = ::fi_enable(endpoint); code != 0) return library.failed("fi_enable", code);
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

Result<std::shared_ptr<Domain>> Domain::open() {
  Result<const Library*> library = Library::load();
  if (!library) return library.error();
  auto opened = std::make_shared<Domain>();
  opened->library = *library;
  fid_fabric* fabric = nullptr;
  if (int code = (*library)->open_fabric((*library)->tcp->fabric_attr, &fabric, nullptr); code != 0) {
    return (*library)->failed("fi_fabric", code);
  }
  opened->fabric.reset(fabric);
  fid_domain* domain = nullptr;
  if (int code = ::fi_domain(fabric, (*library)->tcp, &domain, nullptr); code != 0) {
    return (*library)->failed("fi_domain", code);
  }
  opened->domain.reset(domain);
  return opened;
}

Result<std::shared_ptr<Listener>> Listener::open(std::shared_ptr<Domain> domain, gate::Address local) {
  const Library& library = *domain->library;
  set_port(local, 0);
  const Info info = make_info(library, local, true);
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
  const Info info = make_info(library, peer, false);
  if (!info) return Error(Errc::out_of_memory, "libfabric has no memory for an endpoint");
  Result<Endpoint> made = make_endpoint(domain, info.get());
  if (!made) return made;
  const int code = ::fi_connect(made->endpoint.get(), &peer.storage, nonce.data(), nonce.size());
  if (code != 0) return Error(Errc::unavailable, library.failed("fi_connect", code).detail());
  if (Status connected = wait_connected(*made, patience); !connected) return connected.error();
  return made;
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
