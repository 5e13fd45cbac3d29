#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "executor/worker/worker.hpp"

namespace {

constexpr std::string_view help =
    "sublet-worker: runs functions for a lease. Started by sublet-agent, not by hand.\n"
    "\n"
    "  --template FD  be the process that workers are forked from; FD is a socket of the agent\n"
    "  --help         this text\n"
    "  --version      the version\n";

}  // namespace

int main(int argc, char** argv) {
  const std::string_view first = argc > 1 ? argv[1] : "";
  if (first == "--help") {
    std::fwrite(help.data(), 1, help.size(), stdout);
    return 0;
  }
  if (first == "--version") {
    std::puts("sublet-worker " SUBLET_VERSION);
    return 0;
  }
  int descriptor = -1;
  if (first == "--template" && argc == 3) {
    const std::string_view text = argv[2];
    if (std::from_chars(text.data(), text.data() + text.size(), descriptor).ec != std::errc{})
      descriptor = -1;
  }
  if (descriptor < 3) {
    std::fprintf(stderr, "sublet-worker: it is started by sublet-agent; start that instead (see --help)\n");
    return 2;
  }
  const int status = sublet::worker::run_template(sublet::FileDescriptor(descriptor));
  std::fflush(nullptr);
  ::_exit(status);  // No exit handlers: those of the template are not a worker's to run.
}
