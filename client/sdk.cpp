// The public classes of sdk/cpp: thin, over LeaseState and ManagerClient.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "client/lease_state.hpp"
#include "client/manager_client.hpp"
#include "runtime/base/limits.hpp"
#include "sdk/cpp/sublet/client.hpp"

namespace sublet {

// --- Buffer ---------------------------------------------------------------------------------------

Buffer::Buffer(Buffer&& other) noexcept
    : owner_(std::exchange(other.owner_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      block_(other.block_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  Buffer taken(std::move(other));
  std::swap(owner_, taken.owner_);
  std::swap(data_, taken.data_);
  std::swap(size_, taken.size_);
  std::swap(block_, taken.block_);
  return *this;
}

Buffer::~Buffer() {
  if (owner_ == nullptr) return;
  owner_->drop(block_);
  owner_->let_go();
}

// --- Future ---------------------------------------------------------------------------------------

Future::Future(Future&& other) noexcept
    : owner_(std::exchange(other.owner_, nullptr)), call_(other.call_), generation_(other.generation_) {}

Future& Future::operator=(Future&& other) noexcept {
  Future taken(std::move(other));
  std::swap(owner_, taken.owner_);
  std::swap(call_, taken.call_);
  std::swap(generation_, taken.generation_);
  return *this;
}

Future::~Future() {
  if (owner_ == nullptr) return;
  owner_->forget({call_, generation_});
  owner_->let_go();
}

bool Future::ready() noexcept {
  return owner_ == nullptr || owner_->ready({call_, generation_});
}

Result<std::size_t> Future::wait() noexcept {
  if (owner_ == nullptr) return Errc::closed;
  Result<std::size_t> result = owner_->wait({call_, generation_});
  std::exchange(owner_, nullptr)->let_go();
  return result;
}

void Future::cancel() noexcept {
  if (owner_ != nullptr) owner_->cancel({call_, generation_});
}

// --- Lease ----------------------------------------------------------------------------------------

Lease::Lease(LeaseState* state) noexcept : state_(state) {}
Lease::Lease(Lease&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}

Lease& Lease::operator=(Lease&& other) noexcept {
  Lease taken(std::move(other));
  std::swap(state_, taken.state_);
  return *this;
}

Lease::~Lease() {
  if (state_ != nullptr) state_->abandon();
}

Result<Buffer> Lease::allocate(std::size_t bytes) {
  if (state_ == nullptr) return Errc::closed;
  return state_->allocate(bytes);
}

Result<Future> Lease::submit(const Buffer& input, std::size_t input_bytes, Buffer& output,
                             const CallOptions& options) noexcept {
  if (state_ == nullptr) return Errc::closed;
  return state_->submit(input, input_bytes, output, options);
}

Result<std::size_t> Lease::invoke(const Buffer& input, std::size_t input_bytes, Buffer& output,
                                  const CallOptions& options) noexcept {
  auto future = submit(input, input_bytes, output, options);
  if (!future.ok()) return future.error();
  return future->wait();
}

void Lease::poll() noexcept {
  if (state_ != nullptr) state_->poll();
}

std::vector<WorkerStatus> Lease::workers() const {
  return state_ == nullptr ? std::vector<WorkerStatus>() : state_->workers();
}
LeaseCounters Lease::counters() const noexcept {
  return state_ == nullptr ? LeaseCounters{} : state_->counters();
}
std::uint64_t Lease::id() const noexcept {
  return state_ == nullptr ? 0 : state_->id;
}

Status Lease::release() {
  if (state_ == nullptr) return {};
  return state_->release();
}

// --- Site -----------------------------------------------------------------------------------------

struct Site::State {
  std::string url;
  SiteOptions options;
  std::unique_ptr<client::ManagerClient> manager;
};

Site::Site(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
Site::Site(Site&&) noexcept = default;
Site& Site::operator=(Site&&) noexcept = default;
Site::~Site() = default;

Result<Site> Site::connect(const std::string& url, const SiteOptions& options) {
  auto manager = client::ManagerClient::create(url);
  if (!manager.ok()) return manager.error();
  if (Status ready = (*manager)->check(options.timeout); !ready.ok()) {
    return Error(ready.error().code(), "no manager answers at " + url + ": " + ready.error().message());
  }
  return Site(std::make_unique<State>(State{url, options, std::move(*manager)}));
}

Result<Lease> Site::lease(const LeaseOptions& options) {
  if (!state_) return Errc::closed;
  auto state = LeaseState::acquire(state_->url, state_->options, options);
  if (!state.ok()) return state.error();
  return Lease(*state);
}

Status Site::deploy(const std::string& name, const std::string& version, const std::string& path) {
  if (!state_) return Errc::closed;
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return Error(Errc::not_found, path + ": " + std::strerror(errno));
  const std::streamoff bytes = file.tellg();
  if (bytes > static_cast<std::streamoff>(limits::function_bytes_max)) {
    return Error(Errc::too_large,
                 path + " is larger than " + std::to_string(limits::function_bytes_max) + " bytes");
  }
  std::string library(static_cast<std::size_t>(std::max<std::streamoff>(bytes, 0)), '\0');
  file.seekg(0);
  if (bytes <= 0 || !file.read(library.data(), bytes)) {
    return Error(Errc::io_error, path + " cannot be read or is empty");
  }
  const auto deployed = state_->manager->deploy(name, version, std::move(library), state_->options.timeout);
  return deployed.ok() ? Status{} : deployed.error();
}

}  // namespace sublet
