#include "executor/agent/listening.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <iterator>

#include "executor/local/messages.hpp"
#include "runtime/memory/region.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::agent {
namespace {

constexpr std::chrono::milliseconds trial_max{10'000};
constexpr std::array known{"tcp", "shm", "verbs"};

std::string any_port(const std::string& host) {
  return host.find(':') == std::string::npos ? host + ":0" : "[" + host + "]:0";
}

/// As a worker does it.
Status listen_once(const std::string& transport, const std::string& address, std::uint64_t region_bytes) {
  auto opened = transport::open(transport);
  if (!opened) return opened.error();
  auto region = memory::Region::create(region_bytes, "sublet-trial");
  if (!region) return region.error();
  auto registered = (*opened)->register_region(*region);
  if (!registered) return registered.error();
  auto listening = (*opened)->listen(address);
  Status status = listening ? Status() : Status(listening.error());
  (*opened)->deregister(*registered);
  opened->reset();
  return status;
}

/// Over the socket: what listen_once() says.
struct Verdict {
  std::uint16_t error = 0;
  std::array<char, local::path_bytes> text{};
};

[[noreturn]] void try_and_tell(int socket, const std::string& transport, const std::string& address,
                               std::uint64_t region_bytes) {
  Verdict verdict;
  if (const Status status = listen_once(transport, address, region_bytes); !status) {
    verdict.error = static_cast<std::uint16_t>(status.error().code());
    local::put(verdict.text, status.error().message());
  }
  [[maybe_unused]] const Status sent = local::send_packet(socket, wire::bytes_of(verdict));
  ::_exit(0);
}

/// A provider of libfabric: whether it is here shows when it is opened.
bool is_fabric(const std::string& transport) {
  return transport.starts_with("fabric:") && transport.size() <= local::transport_bytes;
}

Status try_to_listen(const std::string& transport, const std::string& address, std::uint64_t region_bytes) {
  const std::vector<std::string> here = transport::names();
  if (!is_fabric(transport) && std::find(here.begin(), here.end(), transport) == here.end())
    return Error(Errc::unavailable, "this machine has no device for it; see `sublet doctor`");
  auto pair = local::make_socket_pair();
  if (!pair) return pair.error();
  const pid_t child = ::fork();
  if (child < 0) return Error(Errc::io_error, std::string("fork: ") + std::strerror(errno));
  if (child == 0) try_and_tell(pair->second.get(), transport, address, region_bytes);
  pair->second.reset();
  pollfd wait{pair->first.get(), POLLIN, 0};
  while (::poll(&wait, 1, static_cast<int>(trial_max.count())) < 0 && errno == EINTR) {
  }
  const auto packet = local::receive(pair->first.get());
  ::kill(child, SIGKILL);  // It has nothing more to do, or hangs.
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  if (!packet || packet->size != sizeof(Verdict)) {
    return Error(Errc::unavailable,
                 "opening it did not end within " + std::to_string(trial_max.count()) + " ms");
  }
  const auto verdict = wire::read_as<Verdict>(std::span(packet->bytes).first(packet->size));
  if (verdict->error == 0) return {};
  return Error(static_cast<Errc>(verdict->error), std::string(local::get(verdict->text)));
}

}  // namespace

bool ListenWish::insists_on(std::string_view transport) const {
  return std::find(transports.begin(), transports.end(), transport) != transports.end() ||
         (transport == "verbs" && !verbs_address.empty());
}

Status check(const ListenWish& wish) {
  if (wish.transports.size() > local::transports_max) {
    return Error(Errc::invalid_argument,
                 "--transports names at most " + std::to_string(local::transports_max) + " transports");
  }
  for (const std::string& transport : wish.transports) {
    if (std::find(known.begin(), known.end(), transport) != known.end() || is_fabric(transport)) continue;
    return Error(Errc::invalid_argument, "--transports takes some of " + std::string(transport_choices) +
                                             ", not '" + transport + "'");
  }
  const bool named =
      std::find(wish.transports.begin(), wish.transports.end(), "verbs") != wish.transports.end();
  if (!wish.verbs_address.empty() && !wish.transports.empty() && !named) {
    return Error(Errc::invalid_argument, "--verbs-address is given, but --transports does not name verbs");
  }
  return {};
}

Result<Listening> choose_listening(const ListenWish& wish, const std::string& state_dir,
                                   std::uint64_t region_bytes) {
  const std::string& verbs_host = wish.verbs_address.empty() ? wish.address : wish.verbs_address;
  Listening chosen;
  std::vector<std::string> possible(known.begin(), known.end());
  std::copy_if(wish.transports.begin(), wish.transports.end(), std::back_inserter(possible), is_fabric);
  for (const std::string& transport : possible) {
    const bool insisted = wish.insists_on(transport);
    if (!wish.transports.empty() && !insisted) {
      if (transport == "verbs") chosen.without_verbs = "--transports does not name it";
      continue;
    }
    const std::string address =
        transport == "shm" ? "" : any_port(transport == "verbs" ? verbs_host : wish.address);
    if (insisted || transport == "verbs") {
      const Status works =
          try_to_listen(transport, address.empty() ? state_dir + "/trial.sock" : address, region_bytes);
      if (!works && insisted) {
        return Error(works.error().code(),
                     "workers cannot listen on " + transport + (address.empty() ? "" : " at " + address) +
                         ": " + works.error().message() + ". Mend that or leave " + transport +
                         " out of --transports" + (transport == "verbs" ? " and --verbs-address" : ""));
      }
      if (!works) {
        chosen.without_verbs = works.error().message();
        continue;
      }
    }
    chosen.addresses[transport] = address;
  }
  return chosen;
}

}  // namespace sublet::agent
