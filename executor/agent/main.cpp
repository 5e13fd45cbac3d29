#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cxxopts.hpp>
#include <filesystem>
#include <iostream>
#include <numeric>
#include <sstream>

#include "executor/agent/agent.hpp"
#include "executor/agent/core_list.hpp"
#include "executor/agent/listening.hpp"
#include "executor/agent/order_command.hpp"
#include "executor/agent/usage_book.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/base/config.hpp"
#include "runtime/base/limits.hpp"
#include "runtime/base/log.hpp"
#include "runtime/control/http_client.hpp"

namespace {

using sublet::Errc;
using sublet::Error;
using sublet::Result;
using sublet::Status;

constexpr std::uint64_t mib = std::uint64_t{1} << 20;
constexpr std::uint64_t memory_mib_max = (std::uint64_t{1} << 53) / mib;  // Bytes that JSON keeps exact.
constexpr std::uint64_t warm_max = 1024;
static_assert(warm_max * 3 < sublet::limits::node_workers_max, "a heartbeat names them all");
constexpr std::uint64_t drain_ms_max = 24 * 3'600'000;
constexpr std::uint64_t goodbye_ms_max = 60'000;

std::string host_name() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

/// The worker program lies beside this one.
std::string worker_program() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / "sublet-worker").string();
}

bool is_loopback(const std::string& host) {
  return host.rfind("127.", 0) == 0 || host == "::1";
}

bool is_numeric_address(const std::string& text) {
  in6_addr address{};
  return ::inet_pton(AF_INET, text.c_str(), &address) == 1 ||
         ::inet_pton(AF_INET6, text.c_str(), &address) == 1;
}

/// The option's value, which must lie in a range; `otherwise` when it is not given.
Result<std::uint64_t> number(const sublet::config::Settings& settings, const std::string& option,
                             std::uint64_t otherwise, std::uint64_t least, std::uint64_t most) {
  if (settings.given.count(option) == 0) return otherwise;
  const auto value = settings.given[option].as<std::uint64_t>();
  if (value >= least && value <= most) return value;
  return Error(Errc::invalid_argument, "--" + option + " must be " + std::to_string(least) + " to " +
                                           std::to_string(most) + ", not " + std::to_string(value) +
                                           settings.origin(option));
}

cxxopts::Options describe() {
  cxxopts::Options options("sublet-agent",
                           "Lends this node's cores and memory to a Sublet manager. `sublet-agent lend` and "
                           "`sublet-agent lent` tell and ask one that runs.");
  options.add_options()("manager", "The manager's address, http://HOST:PORT (or SUBLET_MANAGER)",
                        cxxopts::value<std::string>())(
      "name", "The node's name, unique at the manager; default: the host's name",
      cxxopts::value<std::string>())(
      "cores", "How many cores to lend; default: all that this process may use",
      cxxopts::value<std::uint32_t>())("core-list",
                                       "The cores to lend by number, such as 0-3,8; their order is the one "
                                       "that --lend-cores counts by; default: "
                                       "by socket, core and thread",
                                       cxxopts::value<std::string>())(
      "lend-cores", "Of these cores those to lend from the start, counted from 0, such as 2-3; default: all",
      cxxopts::value<std::string>())("lend-memory",
                                     "Of --memory how much to lend from the start, MiB; default: all",
                                     cxxopts::value<std::uint64_t>())(
      "oversubscribe", "Allow --cores beyond what the machine has: workers then share cores")(
      "memory", "Memory to lend, MiB; default: 3/4 of the machine's", cxxopts::value<std::uint64_t>())(
      "address", "Numeric address on which workers listen over TCP",
      cxxopts::value<std::string>()->default_value("127.0.0.1"))(
      "verbs-address",
      "Numeric address of an RDMA device on which workers listen too; default: that of --address, when it "
      "leads "
      "to one",
      cxxopts::value<std::string>())(
      "transports", "On what workers listen, such as tcp,shm,verbs; default: all that work on this machine",
      cxxopts::value<std::string>())(
      "allow-public",
      "Let workers listen on an address that other machines reach; the wire is not encrypted: for trusted "
      "networks")(
      "state-dir",
      "Where functions and sockets are kept; default: a private directory that is removed at the end",
      cxxopts::value<std::string>())("warm",
                                     "Idle workers to keep ready; default: one for each core, at most 16",
                                     cxxopts::value<std::uint64_t>())(
      "warm-loaded", "Idle workers to keep for each recently used function; default: as --warm",
      cxxopts::value<std::uint64_t>())(
      "region", "Registered input memory of each worker, MiB (address space; pages are taken when used)",
      cxxopts::value<std::uint64_t>()->default_value("64"))(
      "drain-ms", "On SIGTERM: how long calls in flight may take before their workers are killed",
      cxxopts::value<std::uint64_t>()->default_value("5000"))(
      "goodbye-ms", "At the end: how long the manager may take to hear of it",
      cxxopts::value<std::uint64_t>()->default_value("1000"))(
      "until",
      "Unix time in seconds until which the node lends anything, such as the end of a pilot job: leases end "
      "before it; default: no end",
      cxxopts::value<std::uint64_t>())("log-level", "debug, info, warning, error or off",
                                       cxxopts::value<std::string>()->default_value("info"))(
      "version", "Print the version")("help", "Print this text");
  sublet::config::add_options(options);
  return options;
}

const std::vector<std::string> command_line_only{"version", "help"};

constexpr const char* lock_name = "/lock";

/// Holds the directory's lock for the life of the process.
Status lock_dir(const std::string& path) {
  const int lock = ::open((path + lock_name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock < 0) return Error(Errc::io_error, std::strerror(errno));
  if (::flock(lock, LOCK_EX | LOCK_NB) == 0) {
    // Whom a batch system's hook has to end.
    const std::string pid = std::to_string(::getpid()) + "\n";
    if (::ftruncate(lock, 0) == 0 && ::pwrite(lock, pid.data(), pid.size(), 0) >= 0) return {};
    const int error = errno;
    ::close(lock);
    return Error(Errc::io_error, std::strerror(error));
  }
  const int error = errno;
  ::close(lock);
  if (error == EWOULDBLOCK) return Errc::busy;
  return Error(Errc::io_error, std::strerror(error));
}

/// Removes what agents left behind that were killed: private directories that nobody holds locked. What
/// their workers had counted moves to `own`, or stays for an agent of the manager that is to hear of it.
void remove_stale(const std::filesystem::path& parent, const std::string& own, const std::string& manager) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(parent, error)) {
    struct stat info {};
    const std::string path = entry.path().string();
    if (entry.path().filename().string().rfind("sublet-agent-", 0) != 0 || ::lstat(path.c_str(), &info) != 0)
      continue;
    if (!S_ISDIR(info.st_mode) || info.st_uid != ::geteuid()) continue;
    const bool of_other = !sublet::agent::usage_of_others(path, manager).empty();
    if (of_other || ::access((path + lock_name).c_str(), F_OK) != 0 || !lock_dir(path).ok()) continue;
    const sublet::Status moved = sublet::agent::adopt_usage(sublet::agent::usage_directory(path, manager),
                                                            sublet::agent::usage_directory(own, manager));
    if (moved) {
      std::filesystem::remove_all(path, error);
    } else {
      sublet::log::warning(moved.error().message());
    }
  }
}

/// The sockets of workers that a killed predecessor has left: their names are taken until they go.
void remove_sockets(const std::string& path) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
    if (entry.is_socket(error)) std::filesystem::remove(entry.path(), error);
  }
}

Result<std::string> make_state_dir(const cxxopts::ParseResult& given, const std::string& manager,
                                   bool& remove) {
  if (given.count("state-dir") > 0) {
    const auto path = given["state-dir"].as<std::string>();
    std::error_code error;
    std::filesystem::create_directories(path, error);
    const auto unusable = [&path](const std::string& why) {
      return Error(Errc::io_error, "cannot use --state-dir " + path + ": " + why +
                                       "; name a directory that this user may write in");
    };
    if (error) return unusable(error.message());
    const auto full = std::filesystem::canonical(path, error).string();
    if (full.size() > 80)
      return Error(Errc::too_large, "--state-dir is too long for the sockets in it: at most 80 characters");
    if (const Status locked = lock_dir(full); !locked) {
      if (locked.error().code() != Errc::busy) return unusable(locked.error().detail());
      return Error(Errc::busy, "another agent uses --state-dir " + full + "; give this one another");
    }
    remove_sockets(full);
    for (const std::string& other : sublet::agent::usage_of_others(full, manager)) {
      sublet::log::warning("what workers counted for another manager is kept in " + other +
                           " until an agent with that --manager and this --state-dir has told it");
    }
    return full;
  }
  std::string path = std::filesystem::temp_directory_path().string() + "/sublet-agent-XXXXXX";
  if (::mkdtemp(path.data()) == nullptr)
    return Error(Errc::io_error, "cannot make a directory in " + path + "; set TMPDIR");
  remove = true;
  if (const Status locked = lock_dir(path); !locked)
    return Error(Errc::io_error, "cannot lock " + path + ": " + locked.error().message() + "; set TMPDIR");
  std::error_code error;
  std::filesystem::create_directories(sublet::agent::usage_directory(path, manager), error);
  remove_stale(std::filesystem::temp_directory_path(), path, manager);
  return path;
}

Result<std::vector<int>> lent_cores(const cxxopts::ParseResult& given) {
  std::vector<int> cores = sublet::agent::own_cores();
  if (given.count("core-list") > 0) {
    auto listed = sublet::agent::parse_core_list(given["core-list"].as<std::string>());
    if (!listed) return Error(Errc::invalid_argument, "--core-list: " + listed.error().detail());
    const bool strange = std::any_of(listed->begin(), listed->end(), [&cores](int core) {
      return std::find(cores.begin(), cores.end(), core) == cores.end();
    });
    if (strange)
      return Error(Errc::invalid_argument, "--core-list names a core that this process may not use");
    cores = std::move(*listed);
  }
  const std::size_t have = cores.size();
  const std::size_t wanted = given.count("cores") > 0 ? given["cores"].as<std::uint32_t>() : have;
  if (have == 0 || wanted == 0) return Error(Errc::invalid_argument, "--cores must be at least 1");
  if (wanted > 4096) return Error(Errc::invalid_argument, "--cores must be at most 4096");
  if (wanted > have && !given["oversubscribe"].as<bool>()) {
    return Error(Errc::invalid_argument,
                 "--cores " + std::to_string(wanted) + " exceeds the " + std::to_string(have) +
                     " that this process may use; ask for fewer or add --oversubscribe");
  }
  for (std::size_t i = have; i < wanted; ++i) cores.push_back(cores[i % have]);
  cores.resize(wanted);
  return cores;
}

/// Of so many cores the places of those that are lent from the start.
Result<std::vector<int>> first_lent(const cxxopts::ParseResult& given, std::size_t cores) {
  std::vector<int> places(cores);
  std::iota(places.begin(), places.end(), 0);
  if (given.count("lend-cores") == 0) return places;
  auto listed = sublet::agent::parse_core_list(given["lend-cores"].as<std::string>());
  if (!listed) return Error(Errc::invalid_argument, "--lend-cores: " + listed.error().detail());
  if (std::any_of(listed->begin(), listed->end(),
                  [cores](int place) { return static_cast<std::size_t>(place) >= cores; })) {
    return Error(Errc::invalid_argument,
                 "--lend-cores counts from 0 to " + std::to_string(cores - 1) + " on this node");
  }
  return listed;
}

Status check_words(const sublet::config::Settings& settings) {
  const auto wrong = [&settings](const std::string& option, const std::string& takes) {
    return Error(Errc::invalid_argument, "--" + option + " takes " + takes + ", not '" +
                                             settings.given[option].as<std::string>() + "'" +
                                             settings.origin(option));
  };
  for (const std::string option : {"address", "verbs-address"}) {
    if (option != "address" && settings.given.count(option) == 0) continue;
    const auto address = settings.given[option].as<std::string>();
    if (!is_numeric_address(address)) return wrong(option, "a numeric address of this machine");
    if (!is_loopback(address) && !settings.given["allow-public"].as<bool>()) {
      return Error(Errc::invalid_argument, "--" + option + " " + address + settings.origin(option) +
                                               " can be reached from other machines; add --allow-public if "
                                               "that is meant");
    }
  }
  constexpr std::array levels{"debug", "info", "warning", "error", "off"};
  const auto level = settings.given["log-level"].as<std::string>();
  if (std::find(levels.begin(), levels.end(), level) == levels.end())
    return wrong("log-level", "debug, info, warning, error or off");
  return {};
}

/// From now on the wall clock may jump.
Status read_end(const sublet::config::Settings& settings, sublet::agent::Options& options) {
  if (settings.given.count("until") == 0) return {};
  const std::uint64_t now = sublet::unix_time_ms() / 1000;
  const auto most = static_cast<std::uint64_t>(sublet::limits::lending_max.count() / 1000);
  const auto until = number(settings, "until", 0, now + 1, now + most);
  if (!until) return until.error();
  options.until = sublet::SteadyClock::now() + std::chrono::seconds(*until - now);
  return {};
}

Status read_numbers(const sublet::config::Settings& settings, sublet::agent::Options& options) {
  const auto machine = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                       static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t by_core = std::min<std::size_t>(options.cores.size(), 16);
  const auto memory = number(settings, "memory", machine / 4 * 3 / mib, 1, memory_mib_max);
  if (!memory) return memory.error();
  const auto warm = number(settings, "warm", by_core, 0, warm_max);
  if (!warm) return warm.error();
  const auto warm_loaded = number(settings, "warm-loaded", *warm, 0, warm_max);
  if (!warm_loaded) return warm_loaded.error();
  const auto region = number(settings, "region", settings.given["region"].as<std::uint64_t>(), 1,
                             sublet::limits::worker_region_bytes_max / mib);
  if (!region) return region.error();
  const auto drain =
      number(settings, "drain-ms", settings.given["drain-ms"].as<std::uint64_t>(), 0, drain_ms_max);
  if (!drain) return drain.error();
  options.memory_bytes = *memory * mib;
  options.warm = static_cast<std::uint32_t>(*warm);
  options.warm_loaded = static_cast<std::uint32_t>(*warm_loaded);
  options.region_bytes = *region * mib;
  options.drain = std::chrono::milliseconds(*drain);
  const auto goodbye =
      number(settings, "goodbye-ms", settings.given["goodbye-ms"].as<std::uint64_t>(), 0, goodbye_ms_max);
  if (!goodbye) return goodbye.error();
  options.goodbye = std::chrono::milliseconds(*goodbye);
  const auto lend_memory = number(settings, "lend-memory", *memory, 1, *memory);
  if (!lend_memory) return lend_memory.error();
  options.lend_memory_bytes = *lend_memory * mib;
  return read_end(settings, options);
}

sublet::agent::ListenWish listen_wish(const cxxopts::ParseResult& given) {
  sublet::agent::ListenWish wish;
  wish.address = given["address"].as<std::string>();
  if (given.count("verbs-address") > 0) wish.verbs_address = given["verbs-address"].as<std::string>();
  if (given.count("transports") == 0) return wish;
  std::istringstream list(given["transports"].as<std::string>());
  for (std::string name; std::getline(list, name, ',');) wish.transports.push_back(name);
  return wish;
}

/// All but the state directory, which is made only for an agent that runs, and what needs it.
Result<sublet::agent::Options> read_options(const sublet::config::Settings& settings) {
  const cxxopts::ParseResult& given = settings.given;
  sublet::agent::Options options;
  const char* manager = std::getenv("SUBLET_MANAGER");
  if (given.count("manager") > 0) {
    options.manager = given["manager"].as<std::string>();
  } else if (manager != nullptr) {
    options.manager = manager;
  } else {
    return Error(Errc::invalid_argument, "name the manager: --manager http://HOST:PORT, or SUBLET_MANAGER");
  }
  if (const auto client = sublet::control::HttpClient::create(options.manager); !client) {
    return Error(Errc::invalid_argument,
                 "--manager: " + client.error().detail() + settings.origin("manager"));
  }
  if (Status good = check_words(settings); !good) return good.error();
  if (Status good = sublet::agent::check(listen_wish(given)); !good) return good.error();
  options.name = given.count("name") > 0 ? given["name"].as<std::string>() : host_name();
  auto cores = lent_cores(given);
  if (!cores) return cores.error();
  options.cores = std::move(*cores);
  auto lend_cores = first_lent(given, options.cores.size());
  if (!lend_cores) return lend_cores.error();
  options.lend_cores = std::move(*lend_cores);
  if (Status good = read_numbers(settings, options); !good) return good.error();
  options.worker_program = worker_program();
  return options;
}

int refuse(const Error& error) {
  std::cerr << "sublet-agent: " << error.detail() << "\n";
  return 2;
}

int run(sublet::agent::Options options, const cxxopts::ParseResult& given) {
  // First of all: on the other cores a batch system's jobs run.
  if (options.lend_cores.size() < options.cores.size()) {
    std::vector<int> lent;
    for (const int place : options.lend_cores) lent.push_back(options.cores[static_cast<std::size_t>(place)]);
    if (const sublet::Status bound = sublet::agent::bind_to_cores(::getpid(), lent); !bound)
      return refuse(bound.error());
  }
  bool remove_state = false;
  auto state = make_state_dir(given, options.manager, remove_state);
  if (!state) return refuse(state.error());
  const std::string state_dir = options.state_dir = *state;
  const std::string usage_dir = sublet::agent::usage_directory(state_dir, options.manager);
  int status = 1;
  auto listening = sublet::agent::choose_listening(listen_wish(given), state_dir, options.region_bytes);
  if (listening) {
    if (!listening->without_verbs.empty())
      sublet::log::info("workers do not listen on verbs: " + listening->without_verbs);
    options.listen = std::move(listening->addresses);
    sublet::agent::Agent agent(std::move(options));
    status = agent.run();
  } else {
    sublet::log::error(listening.error().detail());
  }
  std::error_code error;
  // What no manager has heard of is left for the next agent.
  if (remove_state && !sublet::agent::holds_usage(usage_dir)) std::filesystem::remove_all(state_dir, error);
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && sublet::agent::is_order(argv[1])) return sublet::agent::run_order(argc, argv);
  cxxopts::Options described = describe();
  try {
    const auto settings = sublet::config::read(described, argc, argv, command_line_only);
    if (!settings) return refuse(settings.error());
    const cxxopts::ParseResult& given = settings->given;
    if (given.count("help") > 0) {
      std::cout << described.help();
      return 0;
    }
    if (given.count("version") > 0) {
      std::cout << "sublet-agent " SUBLET_VERSION "\n";
      return 0;
    }
    if (!given.unmatched().empty())
      throw cxxopts::exceptions::exception("unknown argument " + given.unmatched().front());
    auto options = read_options(*settings);
    if (!options) return refuse(options.error());
    sublet::log::start("sublet-agent", sublet::log::parse_level(given["log-level"].as<std::string>()));
    if (given["print-config"].as<bool>()) {
      std::cout << sublet::config::print(described, *settings, command_line_only);
      return 0;
    }
    return run(std::move(*options), given);
  } catch (const cxxopts::exceptions::exception& error) {
    std::cerr << "sublet-agent: " << error.what() << "; see sublet-agent --help\n";
    return 2;
  }
}
