#include "runtime/transport/shm/shm_transport.hpp"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "runtime/base/digest.hpp"
#include "runtime/transport/gate/gated_transport.hpp"
#include "runtime/transport/shm/shm_connection.hpp"

namespace sublet::transport::shm {
namespace {

constexpr std::size_t regions_max = 16;

/// The backend part of a hello and an accept: one for each region, whose file travels along.
struct RegionEntry {
  std::uint64_t key = 0;
  std::uint64_t bytes = 0;
};
/// An accept's files: control block, the acceptor's doorbell, the connector's doorbell, then regions.
constexpr std::size_t accept_files = 3;
static_assert(accept_files + regions_max <= gate::descriptors_max);
static_assert(sizeof(gate::HandshakeFront) + limits::accept_private_bytes +
                  regions_max * sizeof(RegionEntry) <=
              gate::body_bytes_max);

/// Maps the regions that a peer sent. Hostile input.
Result<std::vector<PeerRegion>> map_regions(gate::Greeting& greeting, std::size_t first_file) {
  const std::size_t count = greeting.backend.size() / sizeof(RegionEntry);
  if (greeting.backend.size() % sizeof(RegionEntry) != 0 || count > regions_max ||
      greeting.files.size() != first_file + count) {
    return Error(Errc::protocol_error, "the peer's list of regions is damaged");
  }
  std::vector<PeerRegion> regions;
  for (std::size_t i = 0; i < count; ++i) {
    RegionEntry entry;
    std::memcpy(&entry, greeting.backend.data() + i * sizeof(entry), sizeof(entry));
    Result<memory::Region> memory =
        memory::Region::open(std::move(greeting.files[first_file + i]), entry.bytes);
    if (!memory) return memory.error();
    regions.push_back({entry.key, std::move(*memory)});
  }
  return regions;
}

class ShmTransport final : public gate::GatedTransport {
 public:
  explicit ShmTransport(const Timing& timing)
      : GatedTransport(timing, {.inline_bytes = SIZE_MAX,  // A write has copied when it returns.
                                .write_bytes_max = SIZE_MAX,
                                .same_machine_only = true}) {}

  std::string_view name() const noexcept override { return "shm"; }

  Result<RemoteRegion> register_region(const memory::Region& region) override {
    if (registered_.size() == regions_max) {
      return Error(Errc::no_capacity,
                   "a transport holds at most " + std::to_string(regions_max) + " regions");
    }
    Registered entry{{}, FileDescriptor(::dup(region.descriptor()))};
    if (!entry.file.valid()) return Error(Errc::io_error, std::string("dup: ") + std::strerror(errno));
    fill_random(std::as_writable_bytes(std::span(&entry.entry.key, 1)));
    entry.entry.bytes = region.size();
    const RemoteRegion remote{0, entry.entry.key, region.size()};
    registered_.push_back(std::move(entry));
    return remote;
  }
  void deregister(const RemoteRegion& region) noexcept override {
    std::erase_if(registered_, [&](const Registered& item) { return item.entry.key == region.key; });
  }

  Result<std::string> listen(const std::string& address) override {
    return listen_on(gate::parse_unix(address));
  }
  Result<std::unique_ptr<Connection>> accept(std::uint64_t request,
                                             std::span<const std::byte> private_data) override;

  Result<std::uint64_t> start_connect(const std::string& address, std::span<const std::byte> private_data,
                                      std::chrono::milliseconds timeout) override;
  std::optional<Result<Connected>> take_connected(std::uint64_t attempt) override;

 private:
  struct Registered {
    RegionEntry entry;
    FileDescriptor file;
  };

  [[nodiscard]] std::vector<std::byte> describe_regions(std::vector<int>& files) const {
    std::vector<std::byte> entries;
    for (const Registered& item : registered_) {
      const auto bytes = std::as_bytes(std::span(&item.entry, 1));
      entries.insert(entries.end(), bytes.begin(), bytes.end());
      files.push_back(item.file.get());
    }
    return entries;
  }

  std::vector<Registered> registered_;
};

Result<std::unique_ptr<Connection>> ShmTransport::accept(std::uint64_t request,
                                                         std::span<const std::byte> private_data) {
  Result<gate::Gate::Visitor> visitor = gate().take(request);
  if (!visitor) return visitor.error();
  const gate::LinkPtr link = visitor->link;
  const auto fail = [&](const Error& error) {
    link->hang_up();
    return error;
  };
  Result<std::vector<PeerRegion>> regions = map_regions(visitor->hello, 0);
  if (!regions) return fail(regions.error());
  Result<memory::Region> control = memory::Region::create(sizeof(ControlBlock), "sublet-control");
  if (!control) return fail(control.error());
  new (control->data()) ControlBlock;
  FileDescriptor own_bell(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  FileDescriptor peer_bell(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!own_bell.valid() || !peer_bell.valid()) {
    return fail({Errc::io_error, std::string("eventfd: ") + std::strerror(errno)});
  }
  std::vector<int> files{control->descriptor(), own_bell.get(), peer_bell.get()};
  const std::vector<std::byte> entries = describe_regions(files);
  link->set_wake(std::move(own_bell));
  auto connection = std::make_unique<ShmConnection>(link, std::move(*control), true, std::move(peer_bell),
                                                    std::move(*regions));
  if (Status sent = gate().send_accept(*link, private_data, entries, files); !sent) return sent.error();
  return std::unique_ptr<Connection>(std::move(connection));
}

Result<std::uint64_t> ShmTransport::start_connect(const std::string& address,
                                                  std::span<const std::byte> private_data,
                                                  std::chrono::milliseconds timeout) {
  Result<gate::Address> parsed = gate::parse_unix(address);
  if (!parsed) return parsed.error();
  std::vector<int> files;
  const std::vector<std::byte> entries = describe_regions(files);
  return gate().start_connect(*parsed, private_data, entries, files, SteadyClock::now() + timeout);
}

std::optional<Result<Transport::Connected>> ShmTransport::take_connected(std::uint64_t attempt) {
  std::optional<Result<gate::Gate::Admission>> taken = gate().take_admission(attempt);
  if (!taken) return std::nullopt;
  Result<gate::Gate::Admission>& admission = *taken;
  if (!admission) return admission.error();
  gate::Greeting& acceptance = admission->acceptance;
  const gate::LinkPtr link = admission->link;
  const auto fail = [&](const Error& error) {
    link->hang_up();
    return error;
  };
  Result<std::vector<PeerRegion>> regions = map_regions(acceptance, accept_files);
  if (!regions) return fail(regions.error());
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t control_bytes = (sizeof(ControlBlock) + page - 1) / page * page;
  Result<memory::Region> control = memory::Region::open(std::move(acceptance.files[0]), control_bytes);
  if (!control) return fail(control.error());
  FileDescriptor peer_bell = std::move(acceptance.files[1]);
  link->set_wake(std::move(acceptance.files[2]));
  Connected connected;
  connected.private_data = std::move(acceptance.private_data);
  connected.connection = std::make_unique<ShmConnection>(link, std::move(*control), false,
                                                         std::move(peer_bell), std::move(*regions));
  return connected;
}

}  // namespace

Result<std::unique_ptr<Transport>> open(const Timing& timing) {
  return std::unique_ptr<Transport>(std::make_unique<ShmTransport>(timing));
}

}  // namespace sublet::transport::shm
