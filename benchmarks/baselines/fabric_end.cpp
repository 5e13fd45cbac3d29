#include "benchmarks/baselines/fabric_end.hpp"

#include <array>
#include <stdexcept>
#include <string>

#include "benchmarks/baselines/await.hpp"

namespace sublet::bench {
namespace {

constexpr std::size_t page_bytes = 4096;
constexpr std::size_t queue_entries = 256;
constexpr std::size_t batch = 8;

}  // namespace

FabricEnd::FabricEnd(const BaselineShape& shape)
    : stride_((shape.bytes_max + page_bytes - 1) / page_bytes * page_bytes),
      window_max_(shape.window_max),
      room_((shape.window_max + 1) * stride_, std::byte{0x5A}),
      arrivals_(shape.window_max) {
  auto loaded = Library::load();
  library = loaded.value();
}

void FabricEnd::fail(const char* call, long code) const {
  throw std::runtime_error(library->failed(call, code).detail());
}

void FabricEnd::open_domain(fi_info& info) {
  fid_fabric* opened_fabric = nullptr;
  check("fi_fabric", library->open_fabric(info.fabric_attr, &opened_fabric, nullptr));
  fabric.reset(opened_fabric);
  fid_domain* opened_domain = nullptr;
  check("fi_domain", ::fi_domain(opened_fabric, &info, &opened_domain, nullptr));
  domain.reset(opened_domain);
  fid_mr* registered = nullptr;
  check("fi_mr_reg", ::fi_mr_reg(opened_domain, room_.data(), room_.size(), FI_WRITE | FI_REMOTE_WRITE, 0, 1,
                                 0, &registered, nullptr));
  memory.reset(registered);
  const bool by_address = (info.domain_attr->mr_mode & FI_MR_VIRT_ADDR) != 0;
  base_ = by_address ? reinterpret_cast<std::uint64_t>(room_.data()) : 0;
  inject_bytes = info.tx_attr->inject_size;
}

void FabricEnd::open_completions(fi_wait_obj wait) {
  fi_cq_attr attributes{};
  attributes.size = queue_entries;
  attributes.format = FI_CQ_FORMAT_DATA;
  attributes.wait_obj = wait;
  fid_cq* opened = nullptr;
  check("fi_cq_open", ::fi_cq_open(domain.get(), &attributes, &opened, nullptr));
  completions.reset(opened);
  if (wait == FI_WAIT_FD) check("fi_control", ::fi_control(&opened->fid, FI_GETWAIT, &descriptor));
}

void FabricEnd::open_endpoint(fi_info& info, fid& binds) {
  fid_ep* opened = nullptr;
  check("fi_endpoint", ::fi_endpoint(domain.get(), &info, &opened, nullptr));
  endpoint.reset(opened);
  check("fi_ep_bind", ::fi_ep_bind(opened, &binds, 0));
  // No completions for our own writes: that the other end answers says more.
  check("fi_ep_bind", ::fi_ep_bind(opened, &completions->fid, FI_TRANSMIT | FI_SELECTIVE_COMPLETION));
  check("fi_ep_bind", ::fi_ep_bind(opened, &completions->fid, FI_RECV));
  check("fi_enable", ::fi_enable(opened));
}

FabricEnd::Remote FabricEnd::own_memory() const {
  return {base_, ::fi_mr_key(memory.get())};
}

void FabricEnd::write(const std::byte* data, std::size_t bytes, std::uint32_t slot) {
  const std::uint64_t target = remote.base + slot * stride_;
  while (true) {
    const ssize_t code =
        bytes <= inject_bytes
            ? ::fi_inject_writedata(endpoint.get(), data, bytes, slot, peer, target, remote.key)
            : ::fi_writedata(endpoint.get(), data, bytes, nullptr, slot, peer, target, remote.key, nullptr);
    if (code == 0) return;
    if (code != -FI_EAGAIN) fail("fi_writedata", code);
    (void)poll();  // Makes the room that is missing.
  }
}

void FabricEnd::write_last(const std::byte* data, std::size_t bytes, std::uint32_t slot,
                           std::chrono::microseconds hot) {
  const iovec piece{const_cast<std::byte*>(data), bytes};
  const fi_rma_iov target{remote.base + slot * stride_, bytes, remote.key};
  fi_msg_rma message{};
  message.msg_iov = &piece;
  message.iov_count = 1;
  message.addr = peer;
  message.rma_iov = &target;
  message.rma_iov_count = 1;
  message.data = slot;
  left_ = false;
  for (ssize_t code = -FI_EAGAIN; code == -FI_EAGAIN; (void)poll()) {
    code = ::fi_writemsg(endpoint.get(), &message, FI_REMOTE_CQ_DATA | FI_COMPLETION);
    if (code != 0 && code != -FI_EAGAIN) fail("fi_writemsg", code);
  }
  const auto has_left = [&] {
    (void)poll();
    return left_;
  };
  await(hot, has_left, [&] { sleep(); });
}

bool FabricEnd::poll() {
  std::array<fi_cq_data_entry, batch> entries;
  const ssize_t got = ::fi_cq_read(completions.get(), entries.data(), batch);
  if (got == -FI_EAGAIN) return false;
  if (got < 0) fail("fi_cq_read", got);
  for (std::size_t i = 0; i < static_cast<std::size_t>(got); ++i) {
    if ((entries[i].flags & FI_REMOTE_WRITE) == 0) {
      left_ = true;
      continue;
    }
    arrivals_[arrived_++ % window_max_] = static_cast<std::uint32_t>(entries[i].data);
  }
  return arrived_ != taken_;
}

std::uint32_t FabricEnd::wait(std::chrono::microseconds hot) {
  if (arrived_ == taken_) {
    await(
        hot, [&] { return poll(); }, [&] { sleep(); });
  }
  return arrivals_[taken_++ % window_max_];
}

void FabricEnd::sleep() {
  if (descriptor < 0) return;  // A queue that cannot be slept on is polled.
  fid* queues[] = {&completions->fid};
  if (::fi_trywait(fabric.get(), queues, 1) == 0) sleep_on(descriptor);
}

}  // namespace sublet::bench
