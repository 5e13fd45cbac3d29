#include "runtime/transport/fabric/library.hpp"

#include <dlfcn.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace sublet::transport::fabric {
namespace {

constexpr std::uint32_t api_version = FI_VERSION(1, 14);
constexpr std::size_t unconnected_writes = 512;
constexpr const char* advice =
    "; install libfabric 1.14 or later (Debian, Ubuntu: libfabric1; Fedora: libfabric)";

/// Puts back what a library's constructors and probes did to the process's signal handlers.
class SignalHandlers {
 public:
  SignalHandlers() noexcept {
    for (int signal = 1; signal < NSIG; ++signal) {
      known_[index(signal)] = ::sigaction(signal, nullptr, &actions_[index(signal)]) == 0;
    }
  }
  ~SignalHandlers() {
    for (int signal = 1; signal < NSIG; ++signal) {
      struct sigaction now {};
      if (!known_[index(signal)] || ::sigaction(signal, nullptr, &now) != 0) continue;
      if (now.sa_sigaction != actions_[index(signal)].sa_sigaction) {
        ::sigaction(signal, &actions_[index(signal)], nullptr);
      }
    }
  }
  SignalHandlers(const SignalHandlers&) = delete;
  SignalHandlers& operator=(const SignalHandlers&) = delete;

 private:
  static std::size_t index(int signal) noexcept { return static_cast<std::size_t>(signal); }
  std::array<struct sigaction, NSIG> actions_{};
  std::array<bool, NSIG> known_{};
};

template <typename Function>
bool find(void* handle, const char* name, Function& function) noexcept {
  function = reinterpret_cast<Function>(::dlsym(handle, name));
  return function != nullptr;
}

Status find_tcp(Library& library) {
  const Info hints(library.dupinfo(nullptr), FreeInfo{&library});
  if (!hints) return Error(Errc::out_of_memory, "libfabric has no memory for hints");
  hints->caps = FI_MSG | FI_RMA | FI_WRITE | FI_REMOTE_WRITE;
  hints->ep_attr->type = FI_EP_MSG;
  hints->domain_attr->mr_mode = 0;  // Addresses are offsets and keys are ours.
  // A connection has queues of its own and one owner at a time. Locks cost a third of a microsecond a call.
  hints->domain_attr->threading = FI_THREAD_COMPLETION;
  hints->domain_attr->cq_data_size = sizeof(std::uint64_t);
  hints->tx_attr->iov_limit = 2;
  hints->fabric_attr->prov_name = ::strdup("tcp");
  const int code = library.getinfo(api_version, nullptr, nullptr, 0, hints.get(), &library.tcp);
  if (code == 0) return {};
  return Error(Errc::unavailable, std::string("libfabric offers no tcp endpoint with remote writes: ") +
                                      library.strerror(-code) + advice);
}

Result<const Library*> load_once() {
  // Read by libraries that libfabric pulls in; they would catch the user's crashes otherwise.
  ::setenv("IPATH_NO_BACKTRACE", "1", 0);
  ::setenv("HFI_NO_BACKTRACE", "1", 0);
  const SignalHandlers kept;
  void* handle = ::dlopen("libfabric.so.1", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* reason = ::dlerror();
    return Error(Errc::unavailable,
                 std::string(reason != nullptr ? reason : "libfabric.so.1 is missing") + advice);
  }
  static Library library;
  if (!find(handle, "fi_getinfo", library.getinfo) || !find(handle, "fi_freeinfo", library.freeinfo) ||
      !find(handle, "fi_dupinfo", library.dupinfo) || !find(handle, "fi_fabric", library.open_fabric) ||
      !find(handle, "fi_strerror", library.strerror) || !find(handle, "fi_version", library.version)) {
    return Error(Errc::unavailable,
                 std::string("libfabric.so.1 lacks functions that it should have") + advice);
  }
  if (FI_VERSION_LT(library.version(), api_version)) {
    return Error(Errc::unavailable, "libfabric " + std::to_string(FI_MAJOR(library.version())) + "." +
                                        std::to_string(FI_MINOR(library.version())) + " is too old" + advice);
  }
  if (Status found = find_tcp(library); !found) return found.error();
  return &library;
}

}  // namespace

Result<const Library*> Library::load() {
  static const Result<const Library*> loaded = load_once();
  return loaded;
}

Result<Info> find_unconnected(const Library& library, const std::string& provider) {
  const Info hints(library.dupinfo(nullptr), FreeInfo{&library});
  if (!hints) return Error(Errc::out_of_memory, "libfabric has no memory for hints");
  hints->caps = FI_MSG | FI_RMA | FI_WRITE | FI_REMOTE_WRITE;
  hints->ep_attr->type = FI_EP_RDM;
  hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
  hints->domain_attr->threading = FI_THREAD_SAFE;
  hints->domain_attr->cq_data_size = sizeof(std::uint64_t);  // A word and a length.
  hints->tx_attr->msg_order = hints->rx_attr->msg_order = FI_ORDER_WAW;
  hints->tx_attr->iov_limit = 2;
  hints->tx_attr->size = unconnected_writes;  // Buffers for all of them are made with each endpoint.
  hints->fabric_attr->prov_name = ::strdup(provider.c_str());
  fi_info* found = nullptr;
  const int code = library.getinfo(api_version, nullptr, nullptr, 0, hints.get(), &found);
  if (code == 0) return Info(found, FreeInfo{&library});
  return Error(Errc::unavailable,
               "libfabric's provider '" + provider +
                   "' is missing or offers no unconnected endpoint with ordered remote writes and 8 bytes of "
                   "data (" +
                   library.strerror(-code) + "); 'fi_info -p \"" + provider + "\" -t FI_EP_RDM -v' shows it");
}

Error Library::failed(const char* call, long code) const {
  return {Errc::io_error, std::string(call) + ": " + strerror(static_cast<int>(code < 0 ? -code : code))};
}

}  // namespace sublet::transport::fabric
