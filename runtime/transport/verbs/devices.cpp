#include "runtime/transport/verbs/devices.hpp"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>

#include "runtime/transport/verbs/handle.hpp"

namespace sublet::transport::verbs {
namespace {

namespace fs = std::filesystem;
constexpr const char* devices_folder = "/sys/class/infiniband";
constexpr const char* manager_device = "/dev/infiniband/rdma_cm";
constexpr std::string_view infiniband_interface = "32";  ///< ARPHRD_INFINIBAND
constexpr std::string_view no_gid = "0000:0000:0000:0000:0000:0000:0000:0000";

std::string read_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::vector<fs::path> entries(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) found.push_back(entry.path());
  std::ranges::sort(found);
  return found;
}

/// "4: ACTIVE" -> "ACTIVE".
std::string state_of(const fs::path& port) {
  const std::string line = read_line(port / "state");
  const std::size_t space = line.find(' ');
  return space == std::string::npos ? line : line.substr(space + 1);
}

/// The file that opens the device, as /sys/class/infiniband_verbs knows it.
std::string file_of(const std::string& device) {
  for (const fs::path& entry : entries("/sys/class/infiniband_verbs")) {
    if (read_line(entry / "ibdev") == device) return "/dev/infiniband/" + entry.filename().string();
  }
  return {};
}

/// What keeps this process from the device, judged without opening it.
std::string problem_of(const std::string& device, const std::vector<fs::path>& ports) {
  const bool active =
      std::ranges::any_of(ports, [](const fs::path& port) { return state_of(port) == "ACTIVE"; });
  if (!active) return "no port of it is active; check the cable and `ip link`";
  if (::access(manager_device, R_OK | W_OK) != 0) {
    return std::string(manager_device) +
           " cannot be opened; load rdma_ucm (modprobe rdma_ucm) and let this container or user use it";
  }
  const std::string file = file_of(device);
  if (file.empty()) return "it has no verbs interface; load ib_uverbs (modprobe ib_uverbs)";
  if (::access(file.c_str(), R_OK | W_OK) != 0) {
    return file + " cannot be opened; let this container or user use it";
  }
  return {};
}

std::vector<Gid> gids_of(const fs::path& port) {
  std::vector<Gid> gids;
  for (const fs::path& entry : entries(port / "gids")) {
    std::string text = read_line(entry);
    if (text.empty() || text == no_gid) continue;
    const fs::path index = entry.filename();
    gids.push_back({static_cast<std::uint32_t>(std::stoul(index.string())), std::move(text),
                    read_line(port / "gid_attrs/types" / index),
                    read_line(port / "gid_attrs/ndevs" / index)});
  }
  std::ranges::sort(gids, {}, &Gid::index);
  return gids;
}

/// On Ethernet a GID names its interface; over InfiniBand the interface names its device.
bool leads_to(const std::string& interface, const std::string& device, const std::vector<Gid>& gids) {
  if (std::ranges::any_of(gids, [&](const Gid& gid) { return gid.network == interface; })) return true;
  std::error_code error;
  return fs::exists("/sys/class/net/" + interface + "/device/infiniband/" + device, error) &&
         read_line("/sys/class/net/" + interface + "/type") == infiniband_interface;
}

std::vector<std::string> addresses_of(const std::string& device, const std::vector<Gid>& gids) {
  std::vector<std::string> found;
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return found;
  for (const ifaddrs* each = all; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr) continue;
    if (!leads_to(each->ifa_name, device, gids)) continue;
    std::array<char, INET6_ADDRSTRLEN> text{};
    const int family = each->ifa_addr->sa_family;
    const void* address = nullptr;
    if (family == AF_INET) address = &reinterpret_cast<const sockaddr_in*>(each->ifa_addr)->sin_addr;
    if (family == AF_INET6) address = &reinterpret_cast<const sockaddr_in6*>(each->ifa_addr)->sin6_addr;
    if (address == nullptr || ::inet_ntop(family, address, text.data(), text.size()) == nullptr) continue;
    found.emplace_back(text.data());
  }
  ::freeifaddrs(all);
  return found;
}

constexpr std::uint32_t smallest_mtu_bytes = 256;  ///< IBV_MTU_256; each next constant doubles it.

void ask_device(DeviceInfo& info) {
  int count = 0;
  const DeviceList list(::ibv_get_device_list(&count));
  for (int i = 0; i < count; ++i) {
    ibv_device* const device = list.get()[i];
    if (info.name != ::ibv_get_device_name(device)) continue;
    const Context context(::ibv_open_device(device));
    if (!context) {
      info.problem = "it cannot be opened; look at the permissions of /dev/infiniband";
      return;
    }
    for (Port& port : info.ports) {
      ibv_port_attr attributes{};
      if (::ibv_query_port(context.get(), static_cast<std::uint8_t>(port.number), &attributes) != 0) continue;
      port.active_mtu_bytes = smallest_mtu_bytes << (attributes.active_mtu - IBV_MTU_256);
    }
    return;
  }
  info.problem = "no library drives it; install the package ibverbs-providers";
}

}  // namespace

bool present() noexcept {
  try {
    const std::vector<fs::path> devices = entries(devices_folder);
    return std::ranges::any_of(devices, [](const fs::path& device) {
      return problem_of(device.filename().string(), entries(device / "ports")).empty();
    });
  } catch (const std::exception&) {  // No memory: nothing that could be used.
    return false;
  }
}

std::vector<DeviceInfo> find_devices() {
  std::vector<DeviceInfo> found;
  for (const fs::path& device : entries(devices_folder)) {
    DeviceInfo info;
    info.name = device.filename().string();
    const std::vector<fs::path> ports = entries(device / "ports");
    for (const fs::path& folder : ports) {
      Port port;
      port.number = static_cast<std::uint32_t>(std::stoul(folder.filename().string()));
      port.state = state_of(folder);
      port.link_layer = read_line(folder / "link_layer");
      port.gids = gids_of(folder);
      port.addresses = addresses_of(info.name, port.gids);
      info.ports.push_back(std::move(port));
    }
    info.problem = problem_of(info.name, ports);
    found.push_back(std::move(info));
  }
  return found;
}

std::vector<DeviceInfo> list_devices() {
  std::vector<DeviceInfo> found = find_devices();
  for (DeviceInfo& info : found) {
    if (info.problem.empty()) ask_device(info);
  }
  return found;
}

std::uint64_t lockable_bytes() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
  return limit.rlim_cur;
}

}  // namespace sublet::transport::verbs
