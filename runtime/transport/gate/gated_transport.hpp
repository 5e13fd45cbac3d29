#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/transport/gate/gate.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::transport::gate {

/// What backends with a gate have in common: who comes in, who lives, who said what last.
class GatedTransport : public Transport {
 public:
  const Capabilities& capabilities() const noexcept override { return capabilities_; }
  std::vector<ConnectRequest> requests() override { return gate_.requests(); }
  void reject(std::uint64_t request, std::span<const std::byte> private_data) noexcept override {
    gate_.refuse(request, private_data);
  }
  void give_up(std::uint64_t attempt) noexcept override { gate_.give_up(attempt); }
  void service(std::chrono::milliseconds wait_max) override { gate_.service(wait_max); }
  int service_descriptor() const noexcept override { return gate_.descriptor(); }

 protected:
  GatedTransport(const Timing& timing, const Capabilities& capabilities)
      : timing_(timing), capabilities_(capabilities), gate_(timing) {}

  [[nodiscard]] Gate& gate() noexcept { return gate_; }
  [[nodiscard]] const Timing& timing() const noexcept { return timing_; }
  [[nodiscard]] Result<std::string> listen_on(const Result<Address>& address) {
    if (!address) return address.error();
    Result<Address> bound = gate_.listen(*address);
    if (!bound) return bound.error();
    return to_text(*bound);
  }

 private:
  Timing timing_;
  Capabilities capabilities_;
  Gate gate_;
};

}  // namespace sublet::transport::gate
