#include "runtime/transport/fabric/fabric_transport.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "runtime/base/digest.hpp"
#include "runtime/transport/fabric/endpoint.hpp"
#include "runtime/transport/fabric/fabric_connection.hpp"
#include "runtime/transport/fabric/helper.hpp"
#include "runtime/transport/gate/gated_transport.hpp"

namespace sublet::transport::fabric {
namespace {

/// The backend part of an accept: where the data path waits, and what opens it.
struct AcceptPart {
  Nonce nonce{};
  std::uint16_t port = 0;
  std::uint16_t reserved = 0;
  std::uint32_t reserved2 = 0;
};
static_assert(sizeof(AcceptPart) == 24);

class FabricTransport final : public gate::GatedTransport {
 public:
  FabricTransport(std::shared_ptr<Domain> domain, const Timing& timing)
      : GatedTransport(timing, capabilities_of(*domain)), domain_(std::move(domain)) {}

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
  void give_up(std::uint64_t attempt) noexcept override;

 private:
  /// Waits for the helper and makes a connection of what it brings; ends the link otherwise.
  [[nodiscard]] Result<std::unique_ptr<Connection>> finish(const gate::LinkPtr& link, Helper& helper,
                                                           TimePoint deadline);

  /// An attempt of ours whose peer has answered: its data path is on its way.
  struct Opening {
    gate::LinkPtr link;
    std::vector<std::byte> private_data;
    std::unique_ptr<Helper> helper;
  };
  [[nodiscard]] Result<std::unique_ptr<Connection>> make(const gate::LinkPtr& link, Helper& helper);
  /// Starts the data path of an admitted attempt.
  [[nodiscard]] Status open_data(std::uint64_t attempt, gate::Gate::Admission admission);

  std::shared_ptr<Domain> domain_;
  std::map<std::uint64_t, TimePoint> deadlines_;  ///< Of each attempt of ours.
  std::map<std::uint64_t, Opening> openings_;
};

Result<std::unique_ptr<Connection>> FabricTransport::finish(const gate::LinkPtr& link, Helper& helper,
                                                            TimePoint deadline) {
  const auto fail = [&](const Error& error) {
    link->hang_up();
    return error;
  };
  if (Status waited = gate().wait_for(helper.done(), *link, deadline); !waited) return fail(waited.error());
  return make(link, helper);
}

Result<std::unique_ptr<Connection>> FabricTransport::make(const gate::LinkPtr& link, Helper& helper) {
  const auto fail = [&](const Error& error) {
    link->hang_up();
    return error;
  };
  Result<Endpoint> endpoint = helper.take();
  if (!endpoint) return fail(endpoint.error());
  Result<std::unique_ptr<FabricConnection>> made =
      FabricConnection::make(link, gate().mailbox(), std::move(*endpoint), capabilities());
  if (!made) return fail(made.error());
  return std::unique_ptr<Connection>(std::move(*made));
}

Result<std::unique_ptr<Connection>> FabricTransport::accept(std::uint64_t request,
                                                            std::span<const std::byte> private_data) {
  const TimePoint deadline = SteadyClock::now() + timing().handshake_max;
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
  Result<std::shared_ptr<Listener>> listener = Listener::open(domain_, local);
  if (!listener) return fail(listener.error());
  AcceptPart part;
  fill_random(part.nonce);
  part.port = (*listener)->port;
  if (Status sent = gate().send_accept(*link, private_data, std::as_bytes(std::span(&part, 1)), {}); !sent) {
    return fail(sent.error());
  }
  Helper helper([listener = std::move(*listener), nonce = part.nonce](
                    const Patience& patience) { return accept_one(*listener, nonce, patience); },
                deadline);
  return finish(link, helper, deadline);
}

Result<std::uint64_t> FabricTransport::start_connect(const std::string& address,
                                                     std::span<const std::byte> private_data,
                                                     std::chrono::milliseconds timeout) {
  const TimePoint deadline = SteadyClock::now() + timeout;
  Result<gate::Address> parsed = gate::parse_inet(address);
  if (!parsed) return parsed.error();
  Result<std::uint64_t> started = gate().start_connect(*parsed, private_data, {}, {}, deadline);
  if (started) deadlines_[*started] = deadline;
  return started;
}

Status FabricTransport::open_data(std::uint64_t attempt, gate::Gate::Admission admission) {
  AcceptPart part;
  if (admission.acceptance.backend.size() != sizeof(part)) {
    admission.link->hang_up();
    return Error(Errc::protocol_error, "the acceptance does not name a data path");
  }
  std::memcpy(&part, admission.acceptance.backend.data(), sizeof(part));
  gate::Address peer = admission.peer;  // Its host, never one that it names.
  set_port(peer, part.port);
  auto helper = std::make_unique<Helper>(
      [domain = domain_, peer, nonce = part.nonce](const Patience& patience) {
        return connect_one(domain, peer, nonce, patience);
      },
      deadlines_.at(attempt));
  if (Status watched = gate().watch(helper->done()); !watched) {
    admission.link->hang_up();
    return watched;
  }
  openings_[attempt] = {std::move(admission.link), std::move(admission.acceptance.private_data),
                        std::move(helper)};
  return {};
}

std::optional<Result<Transport::Connected>> FabricTransport::take_connected(std::uint64_t attempt) {
  auto found = openings_.find(attempt);
  if (found == openings_.end()) {
    std::optional<Result<gate::Gate::Admission>> taken = gate().take_admission(attempt);
    if (!taken) return std::nullopt;
    Status opened = taken->ok() ? open_data(attempt, std::move(**taken)) : Status(taken->error());
    if (opened) return std::nullopt;
    deadlines_.erase(attempt);
    return opened.error();
  }
  Opening& opening = found->second;
  const bool done = opening.helper->is_done();
  if (!done && opening.link->up() && SteadyClock::now() < deadlines_.at(attempt)) return std::nullopt;
  gate().forget(opening.helper->done());
  Opening over = std::move(opening);
  openings_.erase(found);
  deadlines_.erase(attempt);
  if (!done) {
    const bool left = !over.link->up();
    over.link->hang_up();
    if (left) return Error(Errc::peer_lost, "the peer left during the handshake");
    return Error(Errc::timeout, "the peer did not finish the handshake in time");
  }
  Result<std::unique_ptr<Connection>> connection = make(over.link, *over.helper);
  if (!connection) return connection.error();
  return Connected{std::move(*connection), std::move(over.private_data)};
}

void FabricTransport::give_up(std::uint64_t attempt) noexcept {
  if (deadlines_.erase(attempt) == 0) return;
  const auto found = openings_.find(attempt);
  if (found == openings_.end()) return gate().give_up(attempt);
  gate().forget(found->second.helper->done());
  found->second.link->hang_up();
  openings_.erase(found);
}

}  // namespace

Result<std::unique_ptr<Transport>> open(const Timing& timing) {
  Result<const Library*> library = Library::load();
  if (!library) return library.error();
  Info info((*library)->dupinfo((*library)->tcp), FreeInfo{*library});
  Result<std::shared_ptr<Domain>> domain = Domain::open(**library, "tcp", std::move(info));
  if (!domain) return domain.error();
  return std::unique_ptr<Transport>(std::make_unique<FabricTransport>(std::move(*domain), timing));
}

Status preload() {
  Result<const Library*> loaded = Library::load();
  if (!loaded) return loaded.error();
  return {};
}

}  // namespace sublet::transport::fabric
