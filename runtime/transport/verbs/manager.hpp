#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/clock.hpp"
#include "runtime/base/file_descriptor.hpp"
#include "runtime/base/result.hpp"
#include "runtime/transport/gate/gate.hpp"
#include "runtime/transport/transport.hpp"
#include "runtime/transport/verbs/endpoint.hpp"
#include "runtime/transport/verbs/handle.hpp"

namespace sublet::transport::verbs {

/// The connection manager's events and what follows from them: who asks to come in, who lives, who is
/// silent. Service thread only; what the owner thread needs is in Endpoint.
class Manager {
 public:
  enum class Stage : std::uint8_t {
    resolving,  ///< Ours: on the way to an address, then a route.
    resolved,   ///< Ours: there is a device and a route.
    asking,     ///< Ours: the request is out.
    answered,   ///< Ours: accepted.
    waiting,    ///< A visitor that waits for our answer.
    accepting,  ///< A visitor that we accepted and that has not confirmed it.
    confirmed,  ///< A visitor that has.
    live,
    ended,  ///< `failure` says why; to be forgotten by who waits for it.
  };
  struct Entry {
    Stage stage = Stage::ended;
    TimePoint since;
    CmId id;  ///< Until there is an endpoint, which takes it.
    std::shared_ptr<Endpoint> endpoint;
    gate::Address peer;                   ///< Ours: where to.
    std::vector<std::byte> private_data;  ///< The peer's: hostile.
    Error failure{Errc::unavailable};
    std::uint64_t beat = 0;  ///< The peer's heartbeat as we saw it last,
    TimePoint heard;         ///< and when it last changed.
    TimePoint beaten;        ///< Last heartbeat of ours.
  };

  explicit Manager(const Timing& timing);
  ~Manager();
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;
  [[nodiscard]] Status open();

  [[nodiscard]] Result<gate::Address> listen(const gate::Address& address);
  /// The listener's device; nullptr without a listener or when it listens on every address.
  [[nodiscard]] const char* listening_device() const noexcept;
  void stop_listening() noexcept { listener_.reset(); }

  [[nodiscard]] std::vector<ConnectRequest> requests();
  /// A visitor that still waits; nullptr otherwise.
  [[nodiscard]] Entry* waiting(std::uint64_t request) noexcept;
  void reject(std::uint64_t request, std::span<const std::byte> private_data) noexcept;

  /// Begins a connection of ours: resolves the address.
  [[nodiscard]] Result<std::uint64_t> start(const gate::Address& address);
  [[nodiscard]] Entry& entry(std::uint64_t number) { return entries_.at(number); }
  void enter(Entry& entry, Stage stage) noexcept;
  /// Serves everybody until the entry has left `stage`.
  [[nodiscard]] Status leave(std::uint64_t number, Stage stage, TimePoint deadline);
  void forget(std::uint64_t number) noexcept { entries_.erase(number); }

  /// Serves everybody until `event` is readable or the deadline has passed.
  void wait_for(int event, TimePoint deadline);
  void service(std::chrono::milliseconds wait_max);
  [[nodiscard]] int descriptor() const noexcept { return epoll_.get(); }
  [[nodiscard]] const std::shared_ptr<rdma_event_channel>& channel() const noexcept { return channel_; }
  /// Looks at the device's own events from now on.
  [[nodiscard]] Status watch(std::shared_ptr<Device> device);

 private:
  using Entries = std::map<std::uint64_t, Entry>;

  [[nodiscard]] static Status resolve(rdma_cm_id& id, gate::Address peer);
  void on_events();
  void on_event(const rdma_cm_event& event);
  void on_request(const rdma_cm_event& event);
  void on_end(Entry& entry, const rdma_cm_event& event);
  void on_device_events(Device& device);
  void sweep(TimePoint now);
  [[nodiscard]] bool sweep_entry(Entry& entry, TimePoint now);
  [[nodiscard]] bool lives(Entry& entry, TimePoint now) const noexcept;

  Timing timing_;
  FileDescriptor epoll_;
  std::shared_ptr<rdma_event_channel> channel_;
  CmId listener_;
  std::vector<std::shared_ptr<Device>> devices_;
  std::uint64_t next_number_ = 1;
  Entries entries_;
  std::vector<std::uint64_t> fresh_requests_;
  TimePoint last_service_;
  TimePoint next_sweep_;
};

}  // namespace sublet::transport::verbs
