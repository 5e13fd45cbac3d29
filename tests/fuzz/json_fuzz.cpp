// Every body of the HTTP API: what is taken survives being written and read again.

#include "runtime/control/api.hpp"
#include "tests/fuzz/input.hpp"

using namespace sublet;

namespace {

template <typename T>
void try_body(std::string_view text) {
  const Result<T> body = api::from_json<T>(text);
  if (!body) {
    SUBLET_ASSERT(body.error().code() == Errc::invalid_argument && !body.error().detail().empty());
    return;
  }
  const std::string written = api::to_json(*body);
  const Result<T> again = api::from_json<T>(written);
  SUBLET_ASSERT(again.ok() && api::to_json(*again) == written);
}

constexpr void (*bodies[])(std::string_view) = {
    try_body<api::WorkerInfo>,      try_body<api::NodeRegistration>,
    try_body<api::NodeRegistered>,  try_body<api::Heartbeat>,
    try_body<api::HeartbeatAnswer>, try_body<api::Command>,
    try_body<api::Commands>,        try_body<api::FunctionInfo>,
    try_body<api::Functions>,       try_body<api::LeaseRequest>,
    try_body<api::GrantedWorker>,   try_body<api::LeaseGrant>,
    try_body<api::RenewRequest>,    try_body<api::ReplaceRequest>,
    try_body<api::LeaseInfo>,       try_body<api::Leases>,
    try_body<api::NodeInfo>,        try_body<api::Nodes>,
    try_body<api::WorkerUsage>,     try_body<api::Usage>,
    try_body<api::Tenants>,         try_body<api::Health>,
    try_body<api::ErrorBody>};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const std::size_t kind = input.number() % std::size(bodies);
  bodies[kind](input.rest());
  return 0;
}
