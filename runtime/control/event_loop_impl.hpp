#pragma once

// Private to this layer's .cpp files: it names Boost.

#include <boost/asio/io_context.hpp>

#include "runtime/control/event_loop.hpp"

namespace sublet::control {

struct EventLoop::Impl {
  boost::asio::io_context io{1};
};

}  // namespace sublet::control
