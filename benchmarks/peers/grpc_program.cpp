// The echo over gRPC: one process serves, another calls. Both are started by sublet-bench, which tells them
// over a socket what to do: so that gRPC's libraries and threads are in neither side of another comparison.
#include <benchmarks/peers/echo.grpc.pb.h>
#include <grpcpp/grpcpp.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

#include "benchmarks/baselines/peer.hpp"

namespace {

using sublet::bench::Control;
using sublet::bench::Echo;
using sublet::bench::Histogram;
using sublet::bench::Payload;
using sublet::bench::Plan;

constexpr int any_size = -1;

class Service final : public Echo::Service {
  grpc::Status Unary(grpc::ServerContext* /*context*/, const Payload* request, Payload* reply) override {
    reply->set_bytes(request->bytes());
    return grpc::Status::OK;
  }
  grpc::Status Streaming(grpc::ServerContext* /*context*/,
                         grpc::ServerReaderWriter<Payload, Payload>* stream) override {
    for (Payload message; stream->Read(&message);) stream->Write(message);
    return grpc::Status::OK;
  }
};

void serve(const Control& control) {
  Service service;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(any_size);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) throw std::runtime_error("the gRPC server did not start");
  say_ready(control);
  control.send(port);
  try {
    (void)control.receive<int>();
  } catch (const std::runtime_error&) {
    return;  // The other end has gone: that is the end.
  }
}

class Caller {
 public:
  Caller(int port, bool streaming) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(any_size);
    stub_ = Echo::NewStub(grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port),
                                                    grpc::InsecureChannelCredentials(), arguments));
    if (streaming) stream_ = stub_->Streaming(&context_);
  }

  std::chrono::nanoseconds run(const Plan& plan, Histogram& times) {
    request_.set_bytes(std::string(plan.bytes, 'Z'));
    return time_calls(plan, times, [&] {
      if (!(stream_ ? exchange() : call()) || reply_.bytes().size() != plan.bytes)
        throw std::runtime_error("a call over gRPC failed");
    });
  }

 private:
  bool call() {
    grpc::ClientContext context;
    return stub_->Unary(&context, request_, &reply_).ok();
  }
  bool exchange() { return stream_->Write(request_) && stream_->Read(&reply_); }

  std::unique_ptr<Echo::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<Payload, Payload>> stream_;
  Payload request_;
  Payload reply_;
};

[[noreturn]] void call(const Control& control, bool streaming) {
  Caller caller(control.receive<int>(), streaming);
  say_ready(control);
  while (true) {
    const Plan plan = control.receive<Plan>();
    auto times = std::make_unique<Histogram>();
    const std::chrono::nanoseconds took = caller.run(plan, *times);
    control.send(took);
    control.send(*times);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string role = argc == 3 ? argv[1] : "";
  if (role != "serve" && role != "unary" && role != "streaming") {
    std::fprintf(stderr, "sublet-bench-grpc: started by sublet-bench peers, not by hand\n");
    return 2;
  }
  try {
    const Control control{sublet::FileDescriptor(std::stoi(argv[2]))};
    if (role == "serve") {
      serve(control);
      return 0;
    }
    call(control, role == "streaming");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "sublet-bench-grpc: %s\n", error.what());
    return 1;
  }
}
