#include "tests/conformance/harness.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "runtime/transport/verbs/devices.hpp"
#include "runtime/wire/handshake.hpp"

namespace conformance {
namespace {

constexpr const char* only_variable = "SUBLET_TEST_TRANSPORT";

struct Exclusion {
  const char* test;
  const char* backend;  ///< Ends the backend's name.
  const char* reason;
};
constexpr std::array exclusions{
    Exclusion{"deregister", "shm",
              "a peer of the same user that has mapped a region keeps its mapping; it could open our memory "
              "anyway"},
    Exclusion{"link down", "shm", "there is no link"},
    Exclusion{"refusal told", "ofi_rxm", "unconnected endpoints connect again and tell nothing"},
    Exclusion{"half set-up", "ofi_rxm", "nothing of its set-up comes after the acceptance"},
    Exclusion{"link down", "verbs",
              "a device is not made for a test; verbs_test.cpp takes down one that it may"},
    Exclusion{"gate", "verbs", "no socket of ours listens there; verbs_test.cpp has what answers to it"},
};

}  // namespace

std::vector<std::string> plain_backends() {
  if (const char* only = std::getenv(only_variable)) return {only};
  return names();
}

std::vector<std::string> backends() {
  std::vector<std::string> all = plain_backends();
  if (std::getenv(only_variable) != nullptr) return all;
  for (const std::string& name : plain_backends()) all.push_back("fault:1::" + name);
  all.emplace_back("fabric:tcp:ofi_rxm");
  return all;
}

bool is_verbs(const std::string& backend) {
  return backend.ends_with("verbs");
}

std::string own_host(const std::string& backend) {
  if (!is_verbs(backend)) return "127.0.0.1";
  if (const char* given = std::getenv("SUBLET_TEST_RDMA_ADDRESS")) return given;
  for (const verbs::DeviceInfo& device : verbs::find_devices()) {
    for (const verbs::Port& port : device.ports) {
      if (device.problem.empty() && !port.addresses.empty()) return port.addresses.front();
    }
  }
  return "no RDMA device has an address";
}

bool is_shm(const std::string& backend) {
  return backend.ends_with("shm");
}

bool excluded(const std::string& test, const std::string& backend) {
  for (const Exclusion& exclusion : exclusions) {
    if (test != exclusion.test || !backend.ends_with(exclusion.backend)) continue;
    WARN("not for " << backend << ": " << exclusion.reason);
    return true;
  }
  return false;
}

std::string address_of(const std::string& host, const std::string& port) {
  return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + port;
}

std::string fresh_address(const std::string& backend) {
  static std::atomic<int> count{0};
  if (!is_shm(backend)) return address_of(own_host(backend), "0");
  const auto name = "sublet-conformance." + std::to_string(::getpid()) + "." + std::to_string(count++);
  return (std::filesystem::temp_directory_path() / name).string();
}

PeerProcess::PeerProcess(const std::string& backend, const std::string& timing) {
  start({SUBLET_CONFORMANCE_PEER, backend, fresh_address(backend), timing});
  address_ = read_line();
}

PeerProcess::PeerProcess(const std::string& backend, const std::string& address, const std::string& timing,
                         const std::function<bool(int)>& prepare) {
  start({SUBLET_CONFORMANCE_PEER, backend, address, timing, "own-network"});
  if (read_line() != "ready" || !prepare(process_)) return;
  REQUIRE(::write(input_.get(), "\n", 1) == 1);
  address_ = read_line();
}

void PeerProcess::start(const std::vector<std::string>& arguments) {
  std::array<int, 2> output{};
  std::array<int, 2> input{};
  REQUIRE(::pipe2(output.data(), O_CLOEXEC) == 0);
  REQUIRE(::pipe2(input.data(), O_CLOEXEC) == 0);
  output_.reset(output[0]);
  input_.reset(input[1]);
  const FileDescriptor child_output(output[1]);
  const FileDescriptor child_input(input[0]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, child_output.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, child_input.get(), STDIN_FILENO);
  std::vector<char*> pointers;
  for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  REQUIRE(::posix_spawn(&process_, pointers[0], &actions, nullptr, pointers.data(), environ) == 0);
  ::posix_spawn_file_actions_destroy(&actions);
}

std::string PeerProcess::read_line() {
  std::string line;
  char c = 0;
  while (::read(output_.get(), &c, 1) == 1 && c != '\n') line += c;
  return line;
}

PeerProcess::~PeerProcess() {
  if (process_ < 0) return;
  ::kill(process_, SIGKILL);
  ::waitpid(process_, nullptr, 0);
  if (address_.starts_with('/')) ::unlink(address_.c_str());  // What a killed process leaves behind.
}

void PeerProcess::signal(int number) const {
  REQUIRE(::kill(process_, number) == 0);
}

bool PeerProcess::alive() const {
  siginfo_t info{};
  return ::waitid(P_PID, static_cast<id_t>(process_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == 0;
}

Side::Side(const std::string& backend, const Timing& timing)
    : region(memory::Region::create(region_bytes, "conformance").value()),
      transport(open(backend, timing).value()),
      own(transport->register_region(region).value()) {}

Result<Transport::Connected> Side::try_connect(const std::string& address,
                                               std::chrono::milliseconds timeout) {
  return transport->connect(address, wire::bytes_of(own), timeout);
}

void Side::connect(const std::string& address) {
  Result<Transport::Connected> connected = try_connect(address);
  INFO((connected ? std::string() : connected.error().message()));
  REQUIRE(connected.ok());
  connection = std::move(connected->connection);
  remote = wire::read_as<RemoteRegion>(connected->private_data).value();
  next_service_ = {};
}

void Side::write(std::size_t offset, std::size_t length, std::uint32_t word,
                 Connection::WriteOptions options) {
  const TimePoint deadline = SteadyClock::now() + patience;
  const std::array pieces{std::span<const std::byte>(region.data() + offset, length)};
  while (true) {
    const Status written = connection->write(pieces, remote, offset, word, options);
    if (written) return;
    INFO(written.error().message());
    REQUIRE(written.error().code() == Errc::queue_full);
    REQUIRE(SteadyClock::now() < deadline);
    collect(stash_);  // A full queue empties only while its owner takes what has come.
    serve_if_due();
  }
}

void Side::serve_if_due() {
  const TimePoint now = SteadyClock::now();
  if (now < next_service_) return;
  next_service_ = now + 10ms;
  transport->service(0ms);
}

void Side::collect(std::vector<Completion>& found) {
  std::array<Completion, 64> batch;
  const std::size_t count = connection->poll(batch);
  for (const Completion& completion : std::span(batch).first(count)) {
    if (completion.kind != Completion::Kind::sent) found.push_back(completion);
  }
}

std::vector<Completion> Side::wait(std::chrono::milliseconds limit) {
  const TimePoint deadline = SteadyClock::now() + limit;
  std::vector<Completion> found = std::exchange(stash_, {});
  while (found.empty() && SteadyClock::now() < deadline) {
    collect(found);
    serve_if_due();
  }
  return found;
}

Completion Side::wait_down(std::chrono::milliseconds limit) {
  const TimePoint deadline = SteadyClock::now() + limit;
  while (SteadyClock::now() < deadline) {
    for (const Completion& completion : wait(100ms)) {
      if (completion.kind == Completion::Kind::down) return completion;
    }
  }
  FAIL("the end of the connection was not told in time");
  return {};
}

void Side::fill(std::size_t offset, std::size_t length, std::uint32_t seed) {
  for (std::size_t i = 0; i < length; ++i) region.data()[offset + i] = pattern(i, seed);
}

bool Side::holds(std::size_t offset, std::size_t length, std::uint32_t seed) const {
  for (std::size_t i = 0; i < length; ++i) {
    if (region.data()[offset + i] != pattern(i, seed)) return false;
  }
  return true;
}

std::size_t open_descriptors(int process) {
  const auto folder = std::filesystem::directory_iterator("/proc/" + std::to_string(process) + "/fd");
  return static_cast<std::size_t>(std::distance(begin(folder), end(folder)));
}

std::size_t resident_bytes(int process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/statm");
  std::size_t total = 0;
  std::size_t resident = 0;
  file >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace conformance
