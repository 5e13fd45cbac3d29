#include "client/cli/checks.hpp"

#include <dlfcn.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "client/cli/manager.hpp"
#include "client/cli/units.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/transport/transport.hpp"

namespace sublet::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t shared_memory_wanted = std::uint64_t{256} << 20;
constexpr std::uint64_t files_wanted = 1024;
constexpr Manager::Timeout manager_timeout{3000};
constexpr std::uint64_t skew_ms_max = 1000;

/// The version of the libfabric that the tcp transport has loaded.
std::string libfabric_version() {
  void* const handle = ::dlopen("libfabric.so.1", RTLD_NOW | RTLD_NOLOAD);
  if (handle == nullptr) return "libfabric";
  using Version = std::uint32_t (*)();
  const auto version = reinterpret_cast<Version>(::dlsym(handle, "fi_version"));
  const std::uint32_t number = version != nullptr ? version() : 0;
  ::dlclose(handle);
  return "libfabric " + std::to_string(number >> 16) + "." + std::to_string(number & 0xffffU);
}

Check check_tcp() {
  Check check{.what = "transport tcp", .found = ""};
  auto transport = transport::open("tcp");
  const Result<std::string> address = transport ? (*transport)->listen("127.0.0.1:0") : transport.error();
  if (address) {
    check.found = "works, through " + libfabric_version();
    return check;
  }
  check.level = Level::fail;
  check.found = address.error().detail();
  check.advice =
      "without it nothing reaches other machines; install libfabric 1.14 or later (Debian: libfabric1)";
  return check;
}

Check check_shm() {
  Check check{.what = "transport shm", .found = ""};
  std::string folder = (fs::temp_directory_path() / "sublet-doctor-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) {
    return {check.what, Level::fail, "cannot make " + folder + ": " + std::strerror(errno),
            "set TMPDIR to a folder that can be written"};
  }
  {
    auto transport = transport::open("shm");
    const Result<std::string> address = transport ? (*transport)->listen(folder + "/s") : transport.error();
    check.found = address ? "works, for workers on this machine" : address.error().detail();
    if (!address) {
      check.level = Level::warn;
      check.advice = "workers on this machine are reached over tcp instead, which is slower";
    }
  }
  std::error_code error;
  fs::remove_all(folder, error);
  return check;
}

Check check_gpus() {
  const bool driver = fs::exists("/proc/driver/nvidia/version");
  Check check{.what = "GPUs", .found = "no NVIDIA driver; none needed"};
  if (!driver) return check;
  check.level = Level::warn;
  check.found = "not built in, though this machine has an NVIDIA driver";
  check.advice = "functions may use the GPU themselves; payloads go through the host's memory";
  return check;
}

Check check_cgroup() {
  Check check{.what = "cgroup v2", .found = ""};
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line) && !line.starts_with("0::")) continue;
  if (!line.starts_with("0::") || !fs::exists("/sys/fs/cgroup/cgroup.controllers")) {
    return {check.what, Level::warn, "not mounted",
            "an agent here enforces cores and memory without cgroups"};
  }
  const std::string folder = "/sys/fs/cgroup" + (line == "0::/" ? "" : line.substr(3));
  if (::access((folder + "/cgroup.procs").c_str(), W_OK) == 0 &&
      ::access((folder + "/cgroup.subtree_control").c_str(), W_OK) == 0) {
    check.found = folder + " can be written";
    return check;
  }
  return {check.what, Level::warn, folder + " cannot be written",
          "an agent started like this enforces cores and memory without cgroups; its service may have "
          "Delegate=yes"};
}

Check check_clock(std::uint64_t their_ms, std::uint64_t before_ms, std::uint64_t after_ms) {
  const std::uint64_t middle = before_ms + (after_ms - before_ms) / 2;
  const std::uint64_t skew = their_ms > middle ? their_ms - middle : middle - their_ms;
  const std::uint64_t unsure = (after_ms - before_ms) / 2 + 1;
  Check check{.what = "clock", .found = ""};
  if (skew <= unsure) {
    check.found = "that of the manager, within " + in_time_ms(unsure);
    return check;
  }
  check.found = "this machine's is " + in_time_ms(skew) + (their_ms > middle ? " behind" : " ahead of") +
                " the manager's, give or take " + in_time_ms(unsure) +
                "; it does not matter for leases, whose time is the manager's alone";
  if (skew <= skew_ms_max + unsure) return check;
  check.level = Level::warn;
  check.advice = "times in the logs of the two machines do not compare; set both by NTP";
  return check;
}

std::string limit_text(rlim_t limit) {
  return limit == RLIM_INFINITY ? "unlimited" : std::to_string(limit);
}

}  // namespace

void check_machine(std::vector<Check>& checks) {
  checks.push_back({.what = "sublet", .found = SUBLET_VERSION});
  utsname about{};
  if (::uname(&about) == 0) {
    checks.push_back(
        {.what = "kernel", .found = std::string(about.sysname) + " " + about.release + " " + about.machine});
  }
  cpu_set_t usable;
  CPU_ZERO(&usable);
  const long online = ::sysconf(_SC_NPROCESSORS_ONLN);
  if (::sched_getaffinity(0, sizeof usable, &usable) == 0) {
    checks.push_back({.what = "processors",
                      .found = std::to_string(CPU_COUNT(&usable)) + " of " + std::to_string(online) +
                               " may be used by this shell"});
  }
  checks.push_back(check_cgroup());
}

void check_transports(std::vector<Check>& checks) {
  checks.push_back(check_tcp());
  checks.push_back(check_shm());
  check_verbs(checks);
  checks.push_back(check_gpus());
}

void check_limits(std::vector<Check>& checks) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    Check check{.what = "open files",
                .found = limit_text(limit.rlim_cur) + ", at most " + limit_text(limit.rlim_max)};
    if (limit.rlim_cur < files_wanted) {
      check.level = Level::warn;
      check.advice = "each worker of a lease takes some; raise it: ulimit -n " + std::to_string(files_wanted);
    }
    checks.push_back(check);
  }
  struct statvfs shared {};
  if (::statvfs("/dev/shm", &shared) != 0 || ::access("/dev/shm", W_OK) != 0) {
    checks.push_back({"/dev/shm", Level::fail, "cannot be written: " + std::string(std::strerror(errno)),
                      "mount a tmpfs there with mode 1777: shared memory lies in it"});
    return;
  }
  const std::uint64_t free_bytes = std::uint64_t{shared.f_bavail} * shared.f_frsize;
  Check check{.what = "/dev/shm", .found = in_bytes(free_bytes) + " free"};
  if (free_bytes < shared_memory_wanted) {
    check.level = Level::warn;
    check.advice =
        "workers on this machine keep their memory there; make it larger, or remove what lies in it";
  }
  checks.push_back(check);
}

void check_manager(std::vector<Check>& checks, const std::string& url) {
  Manager manager(url, manager_timeout);
  std::string body;
  std::uint64_t before_ms = 0;
  std::uint64_t after_ms = 0;
  try {
    (void)manager.get("/healthz");  // Connects; the next one measures.
    before_ms = unix_time_ms();
    body = manager.get("/healthz");
    after_ms = unix_time_ms();
  } catch (const Exception& error) {
    checks.push_back({"manager", Level::fail, error.error().detail(), ""});
    return;
  }
  const Result<api::Health> health = api::from_json<api::Health>(body);
  if (!health) {
    checks.push_back({"manager", Level::warn, "answers at " + url + ", but not as this version does",
                      "use a sublet of the manager's version"});
  } else {
    Check check{.what = "manager", .found = "version " + health->version + " answers at " + url};
    if (health->version != SUBLET_VERSION) {
      check.level = Level::warn;
      check.advice = "this is version " SUBLET_VERSION "; use the same on both sides";
    }
    checks.push_back(check);
    checks.push_back(check_clock(health->time_ms, before_ms, std::max(before_ms, after_ms)));
  }
  try {
    (void)manager.get("/readyz");
    checks.push_back({.what = "manager ready", .found = "it takes requests"});
  } catch (const Exception& error) {
    checks.push_back({"manager ready", Level::fail, error.error().detail(), "see the manager's log"});
  }
}

}  // namespace sublet::cli
