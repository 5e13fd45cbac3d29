#pragma once

#include <cstdlib>
#include <string>
#include <vector>

namespace sublet::test {

/// What a test of real processes goes over: shm and tcp, or the one that SUBLET_TEST_TRANSPORT names.
inline std::vector<std::string> transports() {
  if (const char* only = std::getenv("SUBLET_TEST_TRANSPORT")) return {only};
  return {"shm", "tcp"};
}

}  // namespace sublet::test
