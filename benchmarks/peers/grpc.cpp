#include "benchmarks/peers/grpc.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>

#include "benchmarks/baselines/peer.hpp"
#include "benchmarks/process.hpp"

namespace sublet::bench {
namespace {

std::string program() {
  return (program_directory() / "sublet-bench-grpc").string();
}

/// Becomes the program, with the control socket as its argument.
void become(const char* role, const Control& control) {
  if (!std::filesystem::exists(program()))
    throw std::runtime_error(
        "built without gRPC: install libgrpc++-dev, libprotobuf-dev and "
        "protobuf-compiler-grpc, then configure again");
  fcntl(control.descriptor(), F_SETFD, 0);
  const std::string path = program();
  const std::string descriptor = std::to_string(control.descriptor());
  execl(path.c_str(), path.c_str(), role, descriptor.c_str(), static_cast<char*>(nullptr));
  throw std::runtime_error(path + " cannot be started");
}

class Grpc final : public Baseline {
 public:
  Grpc(const std::vector<int>& client, const std::vector<int>& servers, bool streaming)
      : streaming_(streaming),
        server_(servers, [](const Control& control) { become("serve", control); }),
        client_(client, [=](const Control& control) { become(streaming ? "streaming" : "unary", control); }) {
  }

  std::string name() const override { return streaming_ ? "gRPC streaming" : "gRPC unary"; }

  void open() override {
    server_.wait_until_ready();
    client_.control().send(server_.control().receive<int>());  // The port.
    client_.wait_until_ready();
  }

  std::chrono::nanoseconds run(const Plan& plan, Histogram& times) override {
    client_.control().send(plan);
    const auto took = client_.control().receive<std::chrono::nanoseconds>();
    times.add(client_.control().receive<Histogram>());
    return took;
  }

 private:
  bool streaming_;
  Peer server_;
  Peer client_;
};

}  // namespace

std::unique_ptr<Baseline> make_grpc(const std::vector<int>& client, const std::vector<int>& servers,
                                    bool streaming) {
  return std::make_unique<Grpc>(client, servers, streaming);
}

}  // namespace sublet::bench
