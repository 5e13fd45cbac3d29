#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/clock.hpp"
#include "runtime/transport/fabric/library.hpp"
#include "runtime/transport/gate/gate.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::transport::fabric {

using Nonce = std::array<std::byte, 16>;

/// One protection domain for each transport: a key of one transport opens nothing of another.
struct Domain {
  const Library* library = nullptr;
  std::string name;  ///< The transport's.
  Info info;         ///< What its endpoints look like, without addresses.
  Handle<fid_fabric> fabric;
  Handle<fid_domain> domain;
  struct Registered {
    const std::byte* data = nullptr;
    std::size_t bytes = 0;
    Handle<fid_mr> registration;
  };
  std::map<std::uint64_t, Registered> regions;  ///< By key. Service thread.

  [[nodiscard]] static Result<std::shared_ptr<Domain>> open(const Library& library, std::string name,
                                                            Info info);
  [[nodiscard]] Result<RemoteRegion> register_region(const memory::Region& region);
  [[nodiscard]] bool describes_sources() const noexcept {
    return (info->domain_attr->mr_mode & FI_MR_LOCAL) != 0;
  }
};

[[nodiscard]] Capabilities capabilities_of(const Domain& domain) noexcept;

/// One connected endpoint with queues of its own: an arrival is known by its queue, and a poll walks
/// no other endpoint.
struct Endpoint {
  std::shared_ptr<Domain> domain;
  Handle<fid_eq> events;  ///< Of a connected one.
  Handle<fid_av> peers;   ///< Of an unconnected one.
  Handle<fid_cq> completions;
  Handle<fid_ep> endpoint;
  fi_addr_t peer = FI_ADDR_UNSPEC;
  fi_wait_obj wait = FI_WAIT_FD;  ///< How the queue was opened.
};

/// A passive endpoint for exactly one peer that knows the nonce.
struct Listener {
  std::shared_ptr<Domain> domain;
  Handle<fid_eq> events;
  Handle<fid_pep> endpoint;
  std::uint16_t port = 0;

  /// @param local The address to listen on; its port is ignored.
  [[nodiscard]] static Result<std::shared_ptr<Listener>> open(std::shared_ptr<Domain> domain,
                                                              gate::Address local);
};

/// How long a blocking set-up call may take, and whether anyone still waits for it.
struct Patience {
  TimePoint deadline;
  std::atomic<bool> cancelled{false};
};

/// These block: libfabric 1.17 reads a handshake with blocking calls that a silent peer can stop for
/// ever. To be run by a Helper only.
[[nodiscard]] Result<Endpoint> accept_one(Listener& listener, const Nonce& nonce, const Patience& patience);
[[nodiscard]] Result<Endpoint> connect_one(const std::shared_ptr<Domain>& domain, const gate::Address& peer,
                                           const Nonce& nonce, const Patience& patience);

/// An unconnected endpoint's address, as its provider writes it.
struct Name {
  static constexpr std::size_t bytes_max = 128;
  std::vector<std::byte> bytes;
};
/// @param local Where to listen, for providers whose addresses are those of the internet.
[[nodiscard]] Result<Endpoint> open_unconnected(const std::shared_ptr<Domain>& domain,
                                                const gate::Address& local);
[[nodiscard]] Result<Name> name_of(const Endpoint& endpoint);
/// Names the endpoint's one peer. Hostile input: of an internet address only the port is believed.
/// @param host The peer's, as the gate knows it.
[[nodiscard]] Status set_peer(Endpoint& endpoint, const Name& name, const gate::Address& host);

void set_port(gate::Address& address, std::uint16_t port) noexcept;
[[nodiscard]] std::uint16_t port_of(const gate::Address& address) noexcept;

}  // namespace sublet::transport::fabric
