#pragma once

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#include <memory>
#include <string>

#include "runtime/base/assert.hpp"
#include "runtime/base/result.hpp"

namespace sublet::transport::fabric {

/// libfabric, loaded when the first transport needs it: linking it would cost every program 0.2 s at
/// its start and install signal handlers. One for the process, never unloaded.
struct Library {
  decltype(&::fi_getinfo) getinfo = nullptr;
  decltype(&::fi_freeinfo) freeinfo = nullptr;
  decltype(&::fi_dupinfo) dupinfo = nullptr;
  decltype(&::fi_fabric) open_fabric = nullptr;
  decltype(&::fi_strerror) strerror = nullptr;
  decltype(&::fi_version) version = nullptr;
  fi_info* tcp = nullptr;  ///< What a tcp endpoint of ours looks like.

  /// Loads and probes once; later calls return the same. Leaves the process's signal handlers as they
  /// were and no thread, endpoint or device behind: a child forked afterwards may use it.
  /// @retval Errc::unavailable with the package to install.
  [[nodiscard]] static Result<const Library*> load();

  [[nodiscard]] Error failed(const char* call, long code) const;
};

/// Closes an object of libfabric once. EBUSY means that a child still refers to it: members were
/// declared out of creation order, which is our bug. Other errors mean that the device has gone.
template <typename Object>
struct CloseFid {
  void operator()(Object* object) const noexcept {
    const int error = ::fi_close(&object->fid);
    SUBLET_ASSERT(error != -FI_EBUSY);
  }
};
template <typename Object>
using Handle = std::unique_ptr<Object, CloseFid<Object>>;

struct FreeInfo {
  const Library* library = nullptr;
  void operator()(fi_info* info) const noexcept { library->freeinfo(info); }
};
using Info = std::unique_ptr<fi_info, FreeInfo>;

/// What an unconnected endpoint (FI_EP_RDM) of a provider looks like.
/// @param provider As libfabric names it: "tcp;ofi_rxm".
/// @retval Errc::unavailable with what it lacks.
[[nodiscard]] Result<Info> find_unconnected(const Library& library, const std::string& provider);

}  // namespace sublet::transport::fabric
