// Any provider of libfabric with unconnected endpoints: "fabric:PROVIDER".
#include <algorithm>
#include <map>
#include <utility>

#include "runtime/transport/fabric/endpoint.hpp"
#include "runtime/transport/fabric/fabric_connection.hpp"
#include "runtime/transport/fabric/fabric_transport.hpp"
#include "runtime/transport/gate/gated_transport.hpp"

namespace sublet::transport::fabric {
namespace {

/// The address by which this machine reaches `peer`.
Result<gate::Address> source_to(const gate::Address& peer) {
  const FileDescriptor socket(::socket(peer.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  gate::Address local;
  local.length = sizeof(local.storage);
  auto* const room = reinterpret_cast<sockaddr*>(&local.storage);
  if (!socket.valid() || ::connect(socket.get(), peer.get(), peer.length) != 0 ||
      ::getsockname(socket.get(), room, &local.length) != 0) {
    return Error(Errc::unavailable, "no way to " + gate::to_text(peer) + " from this machine");
  }
  return local;
}

Capabilities with_small_queue(const Domain& domain) {
  Capabilities capabilities = capabilities_of(domain);
  capabilities.writes_in_flight = domain.info->tx_attr->size;
  return capabilities;
}

/// Each connection has an endpoint of its own, which knows one peer. The gate carries the endpoints'
/// addresses, so that nobody connects to them who was not admitted, and tells a peer's death, of which
/// unconnected endpoints say nothing.
class UnconnectedTransport final : public gate::GatedTransport {
 public:
  UnconnectedTransport(std::shared_ptr<Domain> domain, const Timing& timing)
      : GatedTransport(timing, with_small_queue(*domain)), domain_(std::move(domain)) {}

  std::string_view name() const noexcept override { return domain_->name; }
  Result<RemoteRegion> register_region(const memory::Region& region) override {
    return domain_->register_region(region);
  }
  void deregister(const RemoteRegion& region) noexcept override { domain_->regions.erase(region.key); }
  Result<std::string> listen(const std::string& address) override {
    return listen_on(gate::parse_inet(address));
  }

  Result<std::unique_ptr<Connection>> accept(std::uint64_t request,
                                             std::span<const std::byte> private_data) override;
  Result<std::uint64_t> start_connect(const std::string& address, std::span<const std::byte> private_data,
                                      std::chrono::milliseconds timeout) override;
  std::optional<Result<Connected>> take_connected(std::uint64_t attempt) override;
  void give_up(std::uint64_t attempt) noexcept override {
    attempts_.erase(attempt);
    GatedTransport::give_up(attempt);
  }

 private:
  /// An attempt of ours: an endpoint until the peer has answered, then a connection that the provider makes
  /// ready for writing.
  struct Attempt {
    TimePoint deadline;
    Endpoint endpoint;
    std::unique_ptr<FabricConnection> connection;
    std::vector<std::byte> private_data;
  };
  [[nodiscard]] Result<std::unique_ptr<FabricConnection>> make(const gate::LinkPtr& link, Endpoint endpoint,
                                                               const Name& peer);
  [[nodiscard]] Status admit(Attempt& attempt, gate::Gate::Admission admission);

  std::shared_ptr<Domain> domain_;
  std::map<std::uint64_t, Attempt> attempts_;
};

Result<std::unique_ptr<FabricConnection>> UnconnectedTransport::make(const gate::LinkPtr& link,
                                                                     Endpoint endpoint, const Name& peer) {
  gate::Address host;
  host.length = sizeof(host.storage);
  Status known(Errc::peer_lost);
  if (::getpeername(link->socket(), reinterpret_cast<sockaddr*>(&host.storage), &host.length) == 0) {
    known = set_peer(endpoint, peer, host);
  }
  if (!known) {
    link->hang_up();
    return known.error();
  }
  Result<std::unique_ptr<FabricConnection>> made =
      FabricConnection::make(link, gate().mailbox(), std::move(endpoint), capabilities());
  if (!made) {
    link->hang_up();
    return made.error();
  }
  return made;
}

Result<std::unique_ptr<Connection>> UnconnectedTransport::accept(std::uint64_t request,
                                                                 std::span<const std::byte> private_data) {
  Result<gate::Gate::Visitor> visitor = gate().take(request);
  if (!visitor) return visitor.error();
  const gate::LinkPtr link = visitor->link;
  const auto fail = [&](const Error& error) {
    link->hang_up();
    return error;
  };
  gate::Address local;
  local.length = sizeof(local.storage);
  if (::getsockname(link->socket(), reinterpret_cast<sockaddr*>(&local.storage), &local.length) != 0) {
    return fail({Errc::peer_lost, "the peer left before it was accepted"});
  }
  Result<Endpoint> endpoint = open_unconnected(domain_, local);
  if (!endpoint) return fail(endpoint.error());
  const Result<Name> own = name_of(*endpoint);
  if (!own) return fail(own.error());
  Result<std::unique_ptr<FabricConnection>> made =
      make(link, std::move(*endpoint), Name{std::move(visitor->hello.backend)});
  if (!made) return made.error();
  if (Status sent = gate().send_accept(*link, private_data, own->bytes, {}); !sent) return fail(sent.error());
  return std::unique_ptr<Connection>(std::move(*made));
}

Result<std::uint64_t> UnconnectedTransport::start_connect(const std::string& address,
                                                          std::span<const std::byte> private_data,
                                                          std::chrono::milliseconds timeout) {
  const Result<gate::Address> peer = gate::parse_inet(address);
  if (!peer) return peer.error();
  const Result<gate::Address> local = source_to(*peer);
  if (!local) return local.error();
  Result<Endpoint> endpoint = open_unconnected(domain_, *local);
  if (!endpoint) return endpoint.error();
  const Result<Name> own = name_of(*endpoint);
  if (!own) return own.error();
  const TimePoint deadline = SteadyClock::now() + timeout;
  Result<std::uint64_t> started = gate().start_connect(*peer, private_data, own->bytes, {}, deadline);
  if (started) attempts_[*started] = {deadline, std::move(*endpoint), nullptr, {}};
  return started;
}

Status UnconnectedTransport::admit(Attempt& attempt, gate::Gate::Admission admission) {
  auto made =
      make(admission.link, std::move(attempt.endpoint), Name{std::move(admission.acceptance.backend)});
  if (!made) return made.error();
  attempt.connection = std::move(*made);
  attempt.private_data = std::move(admission.acceptance.private_data);
  return gate().watch(attempt.connection->descriptor());
}

std::optional<Result<Transport::Connected>> UnconnectedTransport::take_connected(std::uint64_t number) {
  const auto found = attempts_.find(number);
  if (found == attempts_.end()) return Error(Errc::not_found, "no such attempt to connect");
  Attempt& attempt = found->second;
  const auto fail = [&](Error error) {
    attempts_.erase(found);
    return error;
  };
  if (!attempt.connection) {
    std::optional<Result<gate::Gate::Admission>> taken = gate().take_admission(number);
    if (!taken) return std::nullopt;
    if (!taken->ok()) return fail(taken->error());
    if (Status admitted = admit(attempt, std::move(**taken)); !admitted) return fail(admitted.error());
  }
  const Status ready = attempt.connection->make_ready();
  if (!ready && ready.error().code() == Errc::queue_full && SteadyClock::now() < attempt.deadline) {
    return std::nullopt;
  }
  gate().forget(attempt.connection->descriptor());
  if (!ready && ready.error().code() == Errc::queue_full) {
    return fail({Errc::timeout, "the peer did not finish the handshake in time"});
  }
  if (!ready) return fail({Errc::unavailable, "the peer left during the handshake"});
  Connected connected{std::move(attempt.connection), std::move(attempt.private_data)};
  attempts_.erase(found);
  return connected;
}

}  // namespace

Result<std::unique_ptr<Transport>> open_provider(const std::string& provider, const Timing& timing) {
  Result<const Library*> library = Library::load();
  if (!library) return library.error();
  std::string name = provider;
  std::replace(name.begin(), name.end(), ':', ';');
  Result<Info> info = find_unconnected(**library, name);
  if (!info) return info.error();
  Result<std::shared_ptr<Domain>> domain = Domain::open(**library, "fabric:" + provider, std::move(*info));
  if (!domain) return domain.error();
  return std::unique_ptr<Transport>(std::make_unique<UnconnectedTransport>(std::move(*domain), timing));
}

}  // namespace sublet::transport::fabric
