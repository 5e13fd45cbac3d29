#include "runtime/transport/transport.hpp"

#include "runtime/transport/fabric/fabric_transport.hpp"
#include "runtime/transport/fault/fault_transport.hpp"
#include "runtime/transport/shm/shm_transport.hpp"

namespace sublet::transport {

Result<std::unique_ptr<Transport>> open(std::string_view name, const Timing& timing) {
  if (name == "tcp") return fabric::open(timing);
  if (name == "shm") return shm::open(timing);
  if (name.starts_with("fault:")) {
    Result<fault::Specification> specification = fault::parse(name);
    if (!specification) return specification.error();
    Result<std::unique_ptr<Transport>> backend = open(specification->backend, timing);
    if (!backend) return backend;
    return fault::decorate(name, *specification, std::move(*backend));
  }
  std::string known;
  for (const std::string& each : names()) known += (known.empty() ? "" : ", ") + each;
  return Error(Errc::not_found, "no transport '" + std::string(name) + "'; there are: " + known);
}

Status preload() {
  return fabric::preload();
}

std::vector<std::string> names() {
  return {"tcp", "shm"};
}

}  // namespace sublet::transport
