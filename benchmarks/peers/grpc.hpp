#pragma once

#include <memory>
#include <vector>

#include "benchmarks/baselines/baseline.hpp"

namespace sublet::bench {

/// The same echo over gRPC on loopback, as its generated code does it: each call by itself, or all on one
/// stream. Client and server are processes of their own, each on its cores. open() throws when this build
/// has no gRPC.
[[nodiscard]] std::unique_ptr<Baseline> make_grpc(const std::vector<int>& client,
                                                  const std::vector<int>& servers, bool streaming);

}  // namespace sublet::bench
