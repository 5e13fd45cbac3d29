#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "sdk/cpp/sublet/client.hpp"
#include "tests/integration/site_fixture.hpp"

namespace sublet::test {

using namespace std::chrono_literals;

enum Entry : std::uint32_t { echo, fail, crash, spin, hog, overflow_stack, reverse, leave_behind, entries };

struct Probe : SiteFixture {
  explicit Probe(unsigned cores = 4) {
    start_agent("n1", cores);
    site().deploy("probe", "1", probe_function()).value();
  }
  [[nodiscard]] Site site() const { return Site::connect(url()).value(); }
  [[nodiscard]] Lease lease(LeaseOptions options = {}) const {
    options.function = "probe@1";
    options.wait = 20s;
    return site().lease(options).value();
  }
};

inline Buffer buffer_with(Lease& lease, std::string_view text) {
  Buffer buffer = lease.allocate(text.size()).value();
  std::memcpy(buffer.data(), text.data(), text.size());
  return buffer;
}

inline Buffer number(Lease& lease, std::uint32_t value) {
  return buffer_with(lease, {reinterpret_cast<const char*>(&value), sizeof(value)});
}

inline std::string text_of(const Buffer& buffer, std::size_t bytes) {
  return {reinterpret_cast<const char*>(buffer.data()), bytes};
}

/// The error of what must have failed.
template <typename T>
Error error_of(const Result<T>& result) {
  if (result.ok()) return Error(Errc::internal, "it succeeded");
  return result.error();
}

}  // namespace sublet::test
