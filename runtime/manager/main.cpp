#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <iostream>
#include <optional>

#include "runtime/base/log.hpp"
#include "runtime/control/event_loop.hpp"
#include "runtime/control/http_server.hpp"
#include "runtime/manager/options.hpp"
#include "runtime/manager/service.hpp"
#include "runtime/manager/state_dir.hpp"

namespace sublet::manager {
namespace {

constexpr int exit_usage = 2;
// For the answers of shut_down() to leave the sockets.
constexpr std::chrono::milliseconds last_answers{50};
// A disk that does not take the last transaction within this does not keep the program.
constexpr std::chrono::milliseconds last_write{5000};

/// One descriptor a connection: the soft limit of most systems is far below what a site needs.
void raise_descriptor_limit() {
  rlimit bound{};
  if (getrlimit(RLIMIT_NOFILE, &bound) != 0) return;
  bound.rlim_cur = bound.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &bound) != 0) log::warning("cannot raise the limit of open files");
}

void print_routes(const std::vector<control::Route>& routes) {
  for (const control::Route& route : routes) std::cout << route.method << " " << route.pattern << "\n";
}

Status run(const Options& options) {
  control::EventLoop loop;
  Result<std::unique_ptr<StateDir>> state = StateDir::open(options.state_dir);
  if (!state) return state.error();
  Result<std::unique_ptr<Service>> opened = Service::open(loop, (*state)->path(), options.policy);
  if (!opened) return opened.error();
  Service& service = **opened;
  if (options.print_routes) {
    print_routes(service.routes());
    return {};
  }
  raise_descriptor_limit();
  Result<std::unique_ptr<control::HttpServer>> server = control::HttpServer::listen(
      loop, options.listen, options.port, service.routes(), {}, service.observer());
  if (!server) return server.error();
  const std::string port = std::to_string((*server)->port());
  loop.on_signals({SIGINT, SIGTERM}, [&](int signal) {
    log::info("ending on signal " + std::to_string(signal));
    service.shut_down([&] { loop.after(last_answers, [&] { loop.stop(); }); });
    loop.after(last_write, [&] { loop.stop(); });
  });
  if (!options.port_file.empty()) {
    if (Status written = write_whole(options.port_file, port + "\n"); !written) return written;
  }
  service.start();
  std::optional<slurm::Watch> watch;
  if (options.slurm.period.count() > 0) {
    watch.emplace(options.slurm, [&](Result<slurm::Picture> seen) {
      loop.post([&service, seen = std::move(seen)]() mutable { service.see_slurm(std::move(seen)); });
    });
  }
  log::info("listening on " + options.listen + " port " + port);
  loop.run();
  watch.reset();
  if (!options.port_file.empty()) std::remove(options.port_file.c_str());
  return {};
}

}  // namespace
}  // namespace sublet::manager

int main(int argc, char** argv) {
  namespace manager = sublet::manager;
  namespace log = sublet::log;
  using sublet::Result;
  using sublet::Status;
  const sublet::Result<manager::CommandLine> line = manager::parse_command_line(argc, argv);
  if (!line) {
    std::cerr << "sublet-manager: " << line.error().detail() << "\n";
    return manager::exit_usage;
  }
  if (!line->options) {
    std::cout << line->text;
    return 0;
  }
  log::start("sublet-manager", log::parse_level(line->options->log_level));
  if (sublet::Status done = manager::run(*line->options); !done) {
    log::error(done.error().message());
    return 1;
  }
  return 0;
}
