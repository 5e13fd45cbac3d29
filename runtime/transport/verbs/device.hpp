#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/result.hpp"
#include "runtime/memory/region.hpp"
#include "runtime/transport/transport.hpp"
#include "runtime/transport/verbs/handle.hpp"

namespace sublet::transport::verbs {

/// What every connection of ours asks of its queue pair; a weaker device gives less.
struct QueueSizes {
  std::uint32_t writes = 1007;  ///< In flight, of the owner.
  std::uint32_t beside = 16;    ///< Kept for heartbeats, grants and farewells.
  std::uint32_t receives = 1023;
};

/// One opened device with a protection domain of its own: a key of one transport opens nothing of
/// another. Service thread, but for what is constant.
class Device {
 public:
  /// @param name As the connection manager names it.
  /// @retval Errc::unavailable, Errc::io_error with what to do.
  [[nodiscard]] static Result<std::shared_ptr<Device>> open(const std::string& name);

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] ibv_context* context() const noexcept { return context_.get(); }
  [[nodiscard]] ibv_pd* domain() const noexcept { return domain_.get(); }
  [[nodiscard]] const QueueSizes& sizes() const noexcept { return sizes_; }
  [[nodiscard]] std::uint32_t inline_bytes() const noexcept { return inline_bytes_; }
  [[nodiscard]] std::uint64_t write_bytes_max() const noexcept { return write_bytes_max_; }

  struct Registered {
    std::uint64_t key = 0;  ///< The transport's.
    const std::byte* begin = nullptr;
    std::uint64_t bytes = 0;
    MemoryRegion handle;
  };
  /// @retval Errc::out_of_memory with the limit to raise.
  [[nodiscard]] Result<MemoryRegion> register_memory(std::byte* begin, std::size_t bytes) const;
  [[nodiscard]] Status add(std::uint64_t key, const memory::Region& region);
  /// @retval Errc::unavailable when the device or its driver takes no dmabuf.
  [[nodiscard]] Status add(std::uint64_t key, const DeviceMemory& memory);
  [[nodiscard]] bool takes_dmabuf() const noexcept { return takes_dmabuf_; }
  /// Ends the access of every peer at once.
  void remove(std::uint64_t key) noexcept;
  [[nodiscard]] const std::vector<Registered>& registered() const noexcept { return registered_; }

  /// A reliable queue pair of the right sizes. `inline_bytes` is asked for and read back.
  [[nodiscard]] QueuePair make_queue_pair(ibv_cq* sends, ibv_cq* receives, std::uint32_t& inline_bytes) const;

 private:
  Device() = default;
  [[nodiscard]] Status ask_limits();
  [[nodiscard]] Status probe_inline();
  [[nodiscard]] bool probe_dmabuf() const noexcept;

  std::string name_;
  Context context_;
  ProtectionDomain domain_;
  QueueSizes sizes_;
  std::uint32_t inline_bytes_ = 0;
  std::uint64_t write_bytes_max_ = 0;
  bool takes_dmabuf_ = false;
  std::vector<Registered> registered_;
};

[[nodiscard]] bool set_non_blocking(int descriptor) noexcept;

/// "CALL: why", with the hint that helps most.
[[nodiscard]] Error failed(const std::string& call, int number);

}  // namespace sublet::transport::verbs
