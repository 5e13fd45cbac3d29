#pragma once

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include <cerrno>
#include <memory>
#include <type_traits>

#include "runtime/base/assert.hpp"

namespace sublet::transport::verbs {

/// Calls `destroy` exactly once. EBUSY means that a child still refers to the object: members were
/// declared out of creation order, which is our bug. Other errors mean that the device has gone.
template <auto destroy>
struct Destroy {
  void operator()(auto* object) const noexcept {
    if constexpr (std::is_void_v<decltype(destroy(object))>) {
      destroy(object);
    } else {
      SUBLET_ASSERT(destroy(object) != EBUSY);
    }
  }
};
template <typename Object, auto destroy>
using Handle = std::unique_ptr<Object, Destroy<destroy>>;

using DeviceList = Handle<ibv_device*, &ibv_free_device_list>;
using Context = Handle<ibv_context, &ibv_close_device>;
using ProtectionDomain = Handle<ibv_pd, &ibv_dealloc_pd>;
using MemoryRegion = Handle<ibv_mr, &ibv_dereg_mr>;
using CompletionChannel = Handle<ibv_comp_channel, &ibv_destroy_comp_channel>;
using CompletionQueue = Handle<ibv_cq, &ibv_destroy_cq>;
using QueuePair = Handle<ibv_qp, &ibv_destroy_qp>;
using EventChannel = Handle<rdma_event_channel, &rdma_destroy_event_channel>;
using CmId = Handle<rdma_cm_id, &rdma_destroy_id>;
using CmEvent = Handle<rdma_cm_event, &rdma_ack_cm_event>;

}  // namespace sublet::transport::verbs
