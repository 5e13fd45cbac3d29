#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/base/clock.hpp"
#include "runtime/base/result.hpp"
#include "runtime/transport/verbs/device.hpp"
#include "runtime/transport/verbs/manager.hpp"

/// The steps of a handshake: request with the caller's private data, acceptance with the acceptor's
/// introduction before them, then the connector's introduction as the first write. Service thread.
namespace sublet::transport::verbs {

/// Makes a queue pair for the entry, which posts its receives before anybody knows of it.
[[nodiscard]] Status give_endpoint(Manager& manager, Manager::Entry& entry, std::shared_ptr<Device> device);

[[nodiscard]] Status send_request(Manager& manager, Manager::Entry& entry,
                                  std::span<const std::byte> private_data);
/// Checks the acceptance (hostile), brings the queue pair up and greets the acceptor.
/// @return The acceptor's private data.
[[nodiscard]] Result<std::vector<std::byte>> finish_connect(Endpoint& endpoint,
                                                            std::span<const std::byte> message);

[[nodiscard]] Status send_acceptance(Manager& manager, Manager::Entry& entry,
                                     std::span<const std::byte> private_data);
/// Waits for the connector's first write, which tells where it is written to; serves others meanwhile.
[[nodiscard]] Status await_greeting(Manager& manager, std::uint64_t number, TimePoint deadline);

}  // namespace sublet::transport::verbs
