#include "runtime/transport/verbs/device.hpp"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "runtime/transport/verbs/devices.hpp"

namespace sublet::transport::verbs {
namespace {

/// Larger than the first, a send queue takes more memory than the copy saves.
constexpr std::array<std::uint32_t, 4> inline_steps{256, 128, 64, 0};
constexpr int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;

}  // namespace

bool set_non_blocking(int descriptor) noexcept {
  const int flags = ::fcntl(descriptor, F_GETFL);
  return flags >= 0 && ::fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) == 0;
}

Error failed(const std::string& call, int number) {
  std::string text = call + ": " + std::strerror(number);
  if (number == ENOMEM || number == EAGAIN) {
    const std::uint64_t limit = lockable_bytes();
    if (limit != UINT64_MAX) {
      text += "; this process may lock " + std::to_string(limit >> 10U) +
              " KiB of memory: raise `ulimit -l` (LimitMEMLOCK=infinity in a systemd unit)";
    }
    return {Errc::out_of_memory, std::move(text)};
  }
  if (number == ENODEV) text += "; no RDMA device has this address: `rdma link` and `ip address` show which";
  const bool away = number == ENODEV || number == ECONNREFUSED || number == EHOSTUNREACH ||
                    number == ENETUNREACH || number == ETIMEDOUT || number == EADDRNOTAVAIL ||
                    number == EACCES || number == EPERM || number == ENOENT;
  return {away ? Errc::unavailable : Errc::io_error, std::move(text)};
}

Result<std::shared_ptr<Device>> Device::open(const std::string& name) {
  int count = 0;
  const DeviceList list(::ibv_get_device_list(&count));
  const std::span<ibv_device*> all(list.get(), list ? static_cast<std::size_t>(count) : 0);
  const auto found =
      std::ranges::find_if(all, [&](ibv_device* each) { return name == ::ibv_get_device_name(each); });
  if (found == all.end()) {
    return Error(Errc::unavailable,
                 "no library drives the RDMA device " + name + "; install the package ibverbs-providers");
  }
  if ((*found)->transport_type != IBV_TRANSPORT_IB) {
    return Error(Errc::unavailable, name + " speaks iWARP, which has no write with immediate data; use tcp");
  }
  std::shared_ptr<Device> device(new Device);
  device->name_ = name;
  device->context_.reset(::ibv_open_device(*found));
  if (!device->context_) return failed("ibv_open_device(" + name + ")", errno);
  device->domain_.reset(::ibv_alloc_pd(device->context_.get()));
  if (!device->domain_) return failed("ibv_alloc_pd(" + name + ")", errno);
  if (!set_non_blocking(device->context_->async_fd)) return failed("fcntl", errno);
  if (Status asked = device->ask_limits(); !asked) return asked.error();
  if (Status probed = device->probe_inline(); !probed) return probed.error();
  device->takes_dmabuf_ = device->probe_dmabuf();
  return device;
}

Status Device::ask_limits() {
  ibv_device_attr attributes{};
  if (const int error = ::ibv_query_device(context_.get(), &attributes); error != 0) {
    return failed("ibv_query_device(" + name_ + ")", error);
  }
  const auto queue_max = static_cast<std::uint32_t>(std::min(attributes.max_qp_wr, attributes.max_cqe));
  if (queue_max < 4 * sizes_.beside || attributes.max_sge < 2) {
    return Error(Errc::unavailable, name_ + " has too small queues for this transport; use tcp");
  }
  sizes_.writes = std::min(sizes_.writes, queue_max - sizes_.beside);
  sizes_.receives = std::min(sizes_.receives, queue_max);
  write_bytes_max_ = UINT32_MAX;
  for (std::uint32_t port = 1; port <= attributes.phys_port_cnt; ++port) {
    ibv_port_attr port_attributes{};
    if (::ibv_query_port(context_.get(), static_cast<std::uint8_t>(port), &port_attributes) != 0) continue;
    if (port_attributes.state != IBV_PORT_ACTIVE) continue;
    write_bytes_max_ = std::min<std::uint64_t>(write_bytes_max_, port_attributes.max_msg_sz);
  }
  return {};
}

QueuePair Device::make_queue_pair(ibv_cq* sends, ibv_cq* receives, std::uint32_t& inline_bytes) const {
  ibv_qp_init_attr wanted{};
  wanted.send_cq = sends;
  wanted.recv_cq = receives;
  wanted.cap.max_send_wr = sizes_.writes + sizes_.beside;
  wanted.cap.max_recv_wr = sizes_.receives;
  wanted.cap.max_send_sge = 2;
  wanted.cap.max_recv_sge = 1;  // Some devices take no 0.
  wanted.cap.max_inline_data = inline_bytes;
  wanted.qp_type = IBV_QPT_RC;
  QueuePair made(::ibv_create_qp(domain_.get(), &wanted));
  inline_bytes = wanted.cap.max_inline_data;
  return made;
}

Status Device::probe_inline() {
  const CompletionQueue queue(::ibv_create_cq(context_.get(), 1, nullptr, nullptr, 0));
  if (!queue) return failed("ibv_create_cq(" + name_ + ")", errno);
  for (const std::uint32_t step : inline_steps) {
    std::uint32_t granted = step;
    if (!make_queue_pair(queue.get(), queue.get(), granted)) continue;
    inline_bytes_ = granted;
    return {};
  }
  return failed("ibv_create_qp(" + name_ + ")", errno);
}

/// Without a descriptor it cannot work, but only who could do it looks at the descriptor.
bool Device::probe_dmabuf() const noexcept {
  const MemoryRegion none(::ibv_reg_dmabuf_mr(domain_.get(), 0, 1, 0, -1, access));
  return !none && errno == EBADF;
}

Result<MemoryRegion> Device::register_memory(std::byte* begin, std::size_t bytes) const {
  MemoryRegion handle(::ibv_reg_mr(domain_.get(), begin, bytes, access));
  if (!handle) return failed("ibv_reg_mr(" + name_ + ", " + std::to_string(bytes) + " bytes)", errno);
  return handle;
}

Status Device::add(std::uint64_t key, const memory::Region& region) {
  Result<MemoryRegion> handle = register_memory(region.data(), region.size());
  if (!handle) return handle.error();
  registered_.push_back({key, region.data(), region.size(), std::move(*handle)});
  return {};
}

Status Device::add(std::uint64_t key, const DeviceMemory& memory) {
  if (!takes_dmabuf_) {
    return Error(
        Errc::unavailable,
        name_ + " reaches no memory of a GPU (no dmabuf in its driver or library); copy to a region");
  }
  MemoryRegion handle(
      ::ibv_reg_dmabuf_mr(domain_.get(), memory.offset, memory.bytes, memory.address, memory.dmabuf, access));
  if (!handle) return failed("ibv_reg_dmabuf_mr(" + name_ + ")", errno);
  // The address is a GPU's, compared and never followed. NOLINTNEXTLINE(performance-no-int-to-ptr)
  const auto* begin = reinterpret_cast<const std::byte*>(memory.address);
  registered_.push_back({key, begin, memory.bytes, std::move(handle)});
  return {};
}

void Device::remove(std::uint64_t key) noexcept {
  std::erase_if(registered_, [key](const Registered& item) { return item.key == key; });
}

}  // namespace sublet::transport::verbs
