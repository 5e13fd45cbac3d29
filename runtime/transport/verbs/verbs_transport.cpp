#include "runtime/transport/verbs/verbs_transport.hpp"

#include <netinet/in.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/base/digest.hpp"
#include "runtime/transport/gate/gate.hpp"
#include "runtime/transport/verbs/device.hpp"
#include "runtime/transport/verbs/devices.hpp"
#include "runtime/transport/verbs/manager.hpp"
#include "runtime/transport/verbs/set_up.hpp"
#include "runtime/transport/verbs/verbs_connection.hpp"

namespace sublet::transport::verbs {
namespace {

using Stage = Manager::Stage;

Error too_much(const char* what, std::size_t limit) {
  return {Errc::too_large,
          std::string(what) + " carries at most " + std::to_string(limit) + " private bytes"};
}

bool is_loopback(const gate::Address& address) {
  if (address.storage.ss_family == AF_INET) {
    const auto& four = reinterpret_cast<const sockaddr_in&>(address.storage);
    return ntohl(four.sin_addr.s_addr) >> 24U == IN_LOOPBACKNET;
  }
  return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(address.storage).sin6_addr) != 0;
}

class VerbsTransport final : public Transport {
 public:
  explicit VerbsTransport(const Timing& timing) : timing_(timing), manager_(timing) {}
  [[nodiscard]] Status open();

  std::string_view name() const noexcept override { return "verbs"; }
  const Capabilities& capabilities() const noexcept override { return capabilities_; }

  Result<RemoteRegion> register_region(const memory::Region& region) override {
    return add(&region, reinterpret_cast<std::uint64_t>(region.data()), region.size());
  }
  Result<RemoteRegion> register_device_memory(const DeviceMemory& memory) override {
    return add(memory, memory.address, memory.bytes);
  }
  void deregister(const RemoteRegion& region) noexcept override;
  Result<std::string> listen(const std::string& address) override;
  std::vector<ConnectRequest> requests() override { return manager_.requests(); }
  Result<std::unique_ptr<Connection>> accept(std::uint64_t request,
                                             std::span<const std::byte> private_data) override;
  void reject(std::uint64_t request, std::span<const std::byte> private_data) noexcept override {
    manager_.reject(request, private_data);
  }
  Result<std::uint64_t> start_connect(const std::string& address, std::span<const std::byte> private_data,
                                      std::chrono::milliseconds timeout) override;
  std::optional<Result<Connected>> take_connected(std::uint64_t attempt) override;
  void give_up(std::uint64_t attempt) noexcept override;
  void service(std::chrono::milliseconds wait_max) override;
  int service_descriptor() const noexcept override { return manager_.descriptor(); }

 private:
  using Memory = std::variant<const memory::Region*, DeviceMemory>;
  struct Region {
    std::uint64_t key = 0;
    Memory memory;
  };
  [[nodiscard]] Result<RemoteRegion> add(const Memory& memory, std::uint64_t address, std::uint64_t bytes);
  [[nodiscard]] static Status add(Device& device, const Region& region);
  /// The device that the connection manager chose, with every region registered.
  [[nodiscard]] Result<std::shared_ptr<Device>> prepare(const char* name);
  /// An own connection on its way.
  struct Attempt {
    std::vector<std::byte> private_data;
    TimePoint deadline;
    std::optional<Result<Connected>> outcome;
  };
  /// Gives the entry an endpoint on the device that the connection manager chose.
  [[nodiscard]] Status equip(Manager::Entry& entry);
  /// Takes the step that is due; tells what came of the attempt when it is over.
  [[nodiscard]] std::optional<Result<Connected>> advance(std::uint64_t number, const Attempt& attempt);

  Timing timing_;
  Capabilities capabilities_;
  std::vector<std::shared_ptr<Device>> devices_;
  std::vector<Region> regions_;
  Manager manager_;
  std::map<std::uint64_t, Attempt> attempts_;
};

Status VerbsTransport::open() {
  if (Status opened = manager_.open(); !opened) return opened;
  capabilities_.inline_bytes = SIZE_MAX;
  capabilities_.write_bytes_max = SIZE_MAX;
  capabilities_.writes_in_flight = SIZE_MAX;
  capabilities_.device_memory = true;
  std::string problems;
  for (const DeviceInfo& info : find_devices()) {
    Error problem(Errc::unavailable, info.problem);
    if (info.problem.empty()) {
      Result<std::shared_ptr<Device>> device = Device::open(info.name);
      if (device) {
        const Device& opened = **device;
        capabilities_.inline_bytes = std::min<std::size_t>(capabilities_.inline_bytes, opened.inline_bytes());
        capabilities_.write_bytes_max =
            std::min<std::size_t>(capabilities_.write_bytes_max, opened.write_bytes_max());
        capabilities_.writes_in_flight =
            std::min<std::size_t>(capabilities_.writes_in_flight, opened.sizes().writes);
        capabilities_.device_memory = capabilities_.device_memory && opened.takes_dmabuf();
        if (Status watched = manager_.watch(*device); !watched) return watched;
        devices_.push_back(std::move(*device));
        continue;
      }
      problem = device.error();
    }
    problems += "; " + info.name + ": " + problem.detail();
  }
  if (!devices_.empty()) return {};
  return Error(Errc::unavailable,
               "no RDMA device can be used" +
                   (problems.empty() ? "; there is none: see `rdma link`, or use tcp" : problems));
}

Status VerbsTransport::add(Device& device, const Region& region) {
  if (const auto* memory = std::get_if<DeviceMemory>(&region.memory)) return device.add(region.key, *memory);
  return device.add(region.key, *std::get<const memory::Region*>(region.memory));
}

Result<RemoteRegion> VerbsTransport::add(const Memory& memory, std::uint64_t address, std::uint64_t bytes) {
  if (std::holds_alternative<DeviceMemory>(memory) && !capabilities_.device_memory) {
    return Transport::register_device_memory(std::get<DeviceMemory>(memory));
  }
  if (regions_.size() == regions_max) {
    return Error(Errc::no_capacity, "a transport holds at most " + std::to_string(regions_max) + " regions");
  }
  Region entry{0, memory};
  fill_random(std::as_writable_bytes(std::span(&entry.key, 1)));
  // With several devices the first connection, or listen(), tells which are used: locking memory is dear.
  for (const std::shared_ptr<Device>& device : devices_) {
    if (devices_.size() > 1 && device->registered().empty()) continue;
    if (Status added = add(*device, entry); !added) {
      for (const std::shared_ptr<Device>& each : devices_) each->remove(entry.key);
      return added.error();
    }
  }
  regions_.push_back(entry);
  return RemoteRegion{address, entry.key, bytes};
}

void VerbsTransport::deregister(const RemoteRegion& region) noexcept {
  std::erase_if(regions_, [&](const Region& item) { return item.key == region.key; });
  for (const std::shared_ptr<Device>& device : devices_) device->remove(region.key);
}

Result<std::shared_ptr<Device>> VerbsTransport::prepare(const char* name) {
  const auto found = std::ranges::find_if(
      devices_, [&](const std::shared_ptr<Device>& device) { return device->name() == name; });
  if (found == devices_.end()) {
    return Error(Errc::unavailable, std::string("the RDMA device ") + name + " could not be opened before");
  }
  for (const Region& region : regions_) {
    const auto has = [&](const Device::Registered& item) { return item.key == region.key; };
    if (std::ranges::any_of((*found)->registered(), has)) continue;
    if (Status added = add(**found, region); !added) return added.error();
  }
  return *found;
}

Result<std::string> VerbsTransport::listen(const std::string& address) {
  Result<gate::Address> parsed = gate::parse_inet(address);
  if (!parsed) return parsed.error();
  if (is_loopback(*parsed)) {
    return Error(Errc::unavailable, address + " leads to no RDMA device, so no peer could come; give " +
                                        (devices_.empty() ? "an" : devices_.front()->name() + "'s") +
                                        " address, which `sublet doctor` shows");
  }
  Result<gate::Address> bound = manager_.listen(*parsed);
  if (!bound) return bound.error();
  if (const char* device = manager_.listening_device()) {
    if (Result<std::shared_ptr<Device>> prepared = prepare(device); !prepared) {
      manager_.stop_listening();
      return prepared.error();
    }
  }
  return gate::to_text(*bound);
}

Status VerbsTransport::equip(Manager::Entry& entry) {
  if (entry.id->verbs == nullptr) return Error(Errc::unavailable, "no RDMA device leads there");
  Result<std::shared_ptr<Device>> device = prepare(::ibv_get_device_name(entry.id->verbs->device));
  if (!device) return device.error();
  return give_endpoint(manager_, entry, std::move(*device));
}

Result<std::unique_ptr<Connection>> VerbsTransport::accept(std::uint64_t request,
                                                           std::span<const std::byte> private_data) {
  const TimePoint deadline = SteadyClock::now() + timing_.handshake_max;
  if (private_data.size() > limits::accept_private_bytes) {
    return too_much("an acceptance", limits::accept_private_bytes);
  }
  Manager::Entry* const entry = manager_.waiting(request);
  if (entry == nullptr) return Error(Errc::peer_lost, "the peer that asked to connect has gone");
  Status done = equip(*entry);
  if (done) done = send_acceptance(manager_, *entry, private_data);
  if (done) done = manager_.leave(request, Stage::accepting, deadline);
  if (done) done = await_greeting(manager_, request, deadline);
  if (!done) {
    manager_.forget(request);
    return done.error();
  }
  manager_.enter(*entry, Stage::live);
  return std::unique_ptr<Connection>(std::make_unique<VerbsConnection>(entry->endpoint, true));
}

Result<std::uint64_t> VerbsTransport::start_connect(const std::string& address,
                                                    std::span<const std::byte> private_data,
                                                    std::chrono::milliseconds timeout) {
  Result<gate::Address> parsed = gate::parse_inet(address);
  if (!parsed) return parsed.error();
  if (private_data.size() > limits::connect_private_bytes) {
    return too_much("a connect request", limits::connect_private_bytes);
  }
  Result<std::uint64_t> started = manager_.start(*parsed);
  if (!started) return started.error();
  attempts_[*started] = {
      {private_data.begin(), private_data.end()}, SteadyClock::now() + timeout, std::nullopt};
  return started;
}

void VerbsTransport::service(std::chrono::milliseconds wait_max) {
  manager_.service(wait_max);
  for (auto& [number, attempt] : attempts_) {
    if (!attempt.outcome) attempt.outcome = advance(number, attempt);
  }
}

std::optional<Result<Transport::Connected>> VerbsTransport::advance(std::uint64_t number,
                                                                    const Attempt& attempt) {
  Manager::Entry& entry = manager_.entry(number);
  switch (entry.stage) {
    case Stage::resolved: {
      Status done = equip(entry);
      if (done) done = send_request(manager_, entry, attempt.private_data);
      if (done) return std::nullopt;
      return done.error();
    }
    case Stage::answered: {
      Result<std::vector<std::byte>> answer = finish_connect(*entry.endpoint, entry.private_data);
      if (!answer) return answer.error();
      manager_.enter(entry, Stage::live);
      return Connected{std::make_unique<VerbsConnection>(entry.endpoint, false), std::move(*answer)};
    }
    case Stage::ended:
      return entry.failure;
    default:
      if (SteadyClock::now() < attempt.deadline) return std::nullopt;
      return Error(Errc::timeout, entry.stage == Stage::resolving ? "no way to the peer was found in time"
                                                                  : "the peer did not answer in time");
  }
}

std::optional<Result<Transport::Connected>> VerbsTransport::take_connected(std::uint64_t attempt) {
  const auto found = attempts_.find(attempt);
  if (found == attempts_.end()) return Error(Errc::not_found, "no such attempt to connect");
  Attempt& kept = found->second;
  if (!kept.outcome) kept.outcome = advance(attempt, kept);
  if (!kept.outcome) return std::nullopt;
  Result<Connected> outcome = std::move(*kept.outcome);
  attempts_.erase(found);
  if (!outcome) manager_.forget(attempt);
  return outcome;
}

void VerbsTransport::give_up(std::uint64_t attempt) noexcept {
  if (attempts_.erase(attempt) > 0) manager_.forget(attempt);
}

}  // namespace

Result<std::unique_ptr<Transport>> open(const Timing& timing) {
  auto transport = std::make_unique<VerbsTransport>(timing);
  if (Status opened = transport->open(); !opened) return opened.error();
  return std::unique_ptr<Transport>(std::move(transport));
}

}  // namespace sublet::transport::verbs
