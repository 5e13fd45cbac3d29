#include "runtime/transport/verbs/set_up.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "runtime/wire/handshake.hpp"

namespace sublet::transport::verbs {
namespace {

constexpr std::uint8_t retries = 6;  ///< 7 would mean for ever.

}  // namespace

Status give_endpoint(Manager& manager, Manager::Entry& entry, std::shared_ptr<Device> device) {
  Result<std::shared_ptr<Endpoint>> endpoint =
      Endpoint::make(std::move(device), manager.channel(), std::move(entry.id));
  if (!endpoint) return endpoint.error();
  entry.endpoint = std::move(*endpoint);
  return entry.endpoint->to_state(IBV_QPS_INIT);
}

Status send_acceptance(Manager& manager, Manager::Entry& entry, std::span<const std::byte> private_data) {
  Endpoint& endpoint = *entry.endpoint;
  for (const ibv_qp_state state : {IBV_QPS_RTR, IBV_QPS_RTS}) {
    if (Status moved = endpoint.to_state(state); !moved) return moved;
  }
  std::array<std::byte, manager_accept_bytes> message{};
  Introduction own = endpoint.introduction();
  own.private_bytes = static_cast<std::uint16_t>(private_data.size());
  std::memcpy(message.data(), &own, sizeof(own));
  std::ranges::copy(private_data, message.begin() + sizeof(own));
  rdma_conn_param parameters{};
  parameters.private_data = message.data();
  parameters.private_data_len = static_cast<std::uint8_t>(sizeof(own) + private_data.size());
  parameters.responder_resources = parameters.initiator_depth = 1;
  parameters.rnr_retry_count = retries;
  parameters.qp_num = endpoint.queue_pair_number();
  manager.enter(entry, Manager::Stage::accepting);
  if (::rdma_accept(endpoint.id(), &parameters) != 0) return failed("rdma_accept", errno);
  return {};
}

Status await_greeting(Manager& manager, std::uint64_t number, TimePoint deadline) {
  while (SteadyClock::now() < deadline) {
    Manager::Entry& entry = manager.entry(number);
    entry.endpoint->arm(false);
    Status heard = entry.endpoint->hear_greeting();
    if (heard || heard.error().code() != Errc::queue_full) return heard;
    if (entry.endpoint->cause() != 0) break;
    manager.wait_for(entry.endpoint->descriptor(), deadline);
  }
  return Error(Errc::peer_lost, "the peer left before it was accepted");
}

Status send_request(Manager& manager, Manager::Entry& entry, std::span<const std::byte> private_data) {
  rdma_conn_param parameters{};
  parameters.private_data = private_data.data();
  parameters.private_data_len = static_cast<std::uint8_t>(private_data.size());
  parameters.responder_resources = parameters.initiator_depth = 1;
  parameters.retry_count = parameters.rnr_retry_count = retries;
  parameters.qp_num = entry.endpoint->queue_pair_number();
  manager.enter(entry, Manager::Stage::asking);
  if (::rdma_connect(entry.endpoint->id(), &parameters) != 0) return failed("rdma_connect", errno);
  return {};
}

Result<std::vector<std::byte>> finish_connect(Endpoint& endpoint, std::span<const std::byte> message) {
  const std::optional<Introduction> peer = wire::read_as<Introduction>(message);
  if (!peer || !endpoint.meet(*peer) || peer->private_bytes > message.size() - sizeof(*peer)) {
    return Error(Errc::protocol_error, "the peer's acceptance is not one of ours");
  }
  for (const ibv_qp_state state : {IBV_QPS_RTR, IBV_QPS_RTS}) {
    if (Status moved = endpoint.to_state(state); !moved) return moved.error();
  }
  if (::rdma_establish(endpoint.id()) != 0) return failed("rdma_establish", errno);
  if (Status greeted = endpoint.greet(); !greeted) return greeted.error();
  const auto answer = message.subspan(sizeof(*peer), peer->private_bytes);
  return std::vector<std::byte>(answer.begin(), answer.end());
}

}  // namespace sublet::transport::verbs
