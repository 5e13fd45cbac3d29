#include "benchmarks/frame/machine.hpp"

#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <ctime>
#include <fstream>

#include "runtime/transport/fabric/library.hpp"

namespace sublet::bench {
namespace {

constexpr const char* unknown = "unknown";

std::string first_line(const char* file) {
  std::ifstream stream(file);
  std::string line;
  return std::getline(stream, line) ? line : unknown;
}

std::string processor() {
  std::ifstream stream("/proc/cpuinfo");
  for (std::string line; std::getline(stream, line);) {
    const std::size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return unknown;
}

std::string system_name() {
  std::ifstream stream("/etc/os-release");
  for (std::string line; std::getline(stream, line);) {
    if (line.rfind("PRETTY_NAME=\"", 0) == 0 && line.size() > 14) return line.substr(13, line.size() - 14);
  }
  return unknown;
}

std::string kernel() {
  utsname name{};
  return uname(&name) == 0 ? std::string(name.release) : unknown;
}

std::string libfabric() {
  const auto library = transport::fabric::Library::load();
  if (!library.ok()) return "none";
  const std::uint32_t version = (*library)->version();
  return std::to_string(FI_MAJOR(version)) + "." + std::to_string(FI_MINOR(version));
}

std::string date() {
  std::array<char, 32> text{};
  const std::time_t now = std::time(nullptr);
  tm parts{};
  gmtime_r(&now, &parts);
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

#if defined(__clang__)
constexpr const char* compiler = "clang " __clang_version__;
#else
constexpr const char* compiler = "gcc " __VERSION__;
#endif

}  // namespace

std::vector<std::pair<std::string, std::string>> machine_facts() {
  return {{"cpu", processor()},
          {"cores", std::to_string(sysconf(_SC_NPROCESSORS_ONLN))},
          {"system", system_name()},
          {"kernel", kernel()},
          {"libfabric", libfabric()},
          {"compiler", compiler},
          {"build", SUBLET_BUILD_TYPE},
          {"version", SUBLET_VERSION},
          {"governor", first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")},
          {"date", date()}};
}

std::pair<double, double> stolen_and_all() {
  std::ifstream stream("/proc/stat");
  std::string cpu;
  stream >> cpu;
  constexpr int steal_column = 7;
  double stolen = 0;
  double all = 0;
  double ticks = 0;
  for (int column = 0; column <= steal_column && stream >> ticks; ++column) {
    all += ticks;
    if (column == steal_column) stolen = ticks;
  }
  return {stolen, all};
}

double load_average() {
  std::ifstream stream("/proc/loadavg");
  double load = 0;
  stream >> load;
  return load;
}

}  // namespace sublet::bench
