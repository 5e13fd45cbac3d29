#pragma once

#include "runtime/base/result.hpp"

namespace sublet::cli {

/// A call did not succeed; whatever the error, the request for it was in order.
class CallFailed : public Exception {
 public:
  using Exception::Exception;
};

}  // namespace sublet::cli
