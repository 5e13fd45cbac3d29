// A user's program that links the installed library: it keeps its signal handlers and its errors are typed.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <sublet/client.hpp>

namespace {

volatile std::sig_atomic_t terminated = 0;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "proof: %s\n", what);
  std::exit(1);
}

/// A port that was free a moment ago, so that nobody listens there.
int closed_port() {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  require(bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0, "bind");
  require(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0, "getsockname");
  close(listener);
  return ntohs(address.sin_port);
}

bool is_default(int signal) {
  struct sigaction action {};
  sigaction(signal, nullptr, &action);
  return action.sa_handler == SIG_DFL;
}

}  // namespace

int main() {
  for (const int signal : {SIGINT, SIGILL, SIGABRT, SIGBUS, SIGSEGV, SIGTERM})
    require(is_default(signal), "linking the library changed a signal handler");
  std::signal(SIGTERM, [](int) { terminated = 1; });

  const auto site = sublet::Site::connect("http://127.0.0.1:" + std::to_string(closed_port()));
  require(!site.ok(), "a closed port answered");
  require(site.error().code() == sublet::Errc::unavailable, site.error().message().c_str());
  require(!sublet::Site::connect("nonsense").ok(), "nonsense was taken for an address");

  std::raise(SIGTERM);
  require(terminated == 1, "the program's own SIGTERM handler is gone");
  for (const int signal : {SIGINT, SIGILL, SIGABRT, SIGBUS, SIGSEGV})
    require(is_default(signal), "using the library changed a signal handler");
  std::puts("proof: all holds");
}
