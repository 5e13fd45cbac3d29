#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "runtime/base/clock.hpp"
#include "runtime/transport/fabric/library.hpp"
#include "runtime/transport/gate/gate.hpp"

namespace sublet::transport::fabric {

using Nonce = std::array<std::byte, 16>;

/// One protection domain for each transport: a key of one transport opens nothing of another.
struct Domain {
  const Library* library = nullptr;
  Handle<fid_fabric> fabric;
  Handle<fid_domain> domain;

  [[nodiscard]] static Result<std::shared_ptr<Domain>> open();
};

/// One connected endpoint with queues of its own: an arrival is known by its queue, and a poll walks
/// no other endpoint.
struct Endpoint {
  std::shared_ptr<Domain> domain;
  Handle<fid_eq> events;
  Handle<fid_cq> completions;
  Handle<fid_ep> endpoint;
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

void set_port(gate::Address& address, std::uint16_t port) noexcept;
[[nodiscard]] std::uint16_t port_of(const gate::Address& address) noexcept;

}  // namespace sublet::transport::fabric
