#include <netinet/in.h>

#include <cstdlib>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <utility>

#include "benchmarks/baselines/exchange.hpp"
#include "benchmarks/baselines/fabric_end.hpp"

namespace sublet::bench {
namespace {

constexpr int event_max_ms = 10'000;

/// What an endpoint needs and no more: one thread uses it, completions come when they are polled for.
Info find_provider(const Library& library) {
  const Info hints(library.dupinfo(nullptr), {&library});
  if (!hints) throw std::runtime_error("libfabric has no memory for hints");
  hints->caps = FI_MSG | FI_RMA | FI_WRITE | FI_REMOTE_WRITE;
  hints->ep_attr->type = FI_EP_MSG;
  hints->domain_attr->mr_mode = 0;
  hints->domain_attr->threading = FI_THREAD_DOMAIN;
  hints->domain_attr->cq_data_size = sizeof(std::uint64_t);
  hints->fabric_attr->prov_name = ::strdup("tcp");
  fi_info* found = nullptr;
  const int code = library.getinfo(library.version(), "127.0.0.1", nullptr, FI_SOURCE, hints.get(), &found);
  if (code != 0) throw std::runtime_error(library.failed("fi_getinfo(tcp)", code).detail());
  return Info(found, {&library});
}

/// Connected through libfabric's own listener; the control socket tells its address.
class TcpEnd : public FabricEnd {
 public:
  TcpEnd(const BaselineShape& shape, bool sleeps)
      : FabricEnd(shape), sleeps_(sleeps), info_(find_provider(*library)) {
    open_domain(*info_);
  }

  void accept(const Control& control) {
    open_events();
    fid_pep* opened = nullptr;
    check("fi_passive_ep", ::fi_passive_ep(fabric.get(), info_.get(), &opened, nullptr));
    const Handle<fid_pep> listener(opened);
    check("fi_pep_bind", ::fi_pep_bind(opened, &events->fid, 0));
    check("fi_listen", ::fi_listen(opened));
    sockaddr_in address{};
    std::size_t length = sizeof address;
    check("fi_getname", ::fi_getname(&opened->fid, &address, &length));
    say_ready(control);
    control.send(address);
    const Info request(next_event(FI_CONNREQ), {library});
    make_endpoint(*request);
    check("fi_accept", ::fi_accept(endpoint.get(), nullptr, 0));
    (void)next_event(FI_CONNECTED);
    control.send(own_memory());
    remote = control.receive<Remote>();
  }

  void connect(const Control& control) {
    open_events();
    const auto address = control.receive<sockaddr_in>();
    make_endpoint(*info_);
    check("fi_connect", ::fi_connect(endpoint.get(), &address, nullptr, 0));
    (void)next_event(FI_CONNECTED);
    control.send(own_memory());
    remote = control.receive<Remote>();
  }

 private:
  void open_events() {
    fi_eq_attr attributes{};
    attributes.wait_obj = FI_WAIT_UNSPEC;
    fid_eq* opened = nullptr;
    check("fi_eq_open", ::fi_eq_open(fabric.get(), &attributes, &opened, nullptr));
    events.reset(opened);
  }

  void make_endpoint(fi_info& info) {
    open_completions(sleeps_ ? FI_WAIT_FD : FI_WAIT_NONE);
    open_endpoint(info, events->fid);
  }

  fi_info* next_event(std::uint32_t wanted) {
    std::uint32_t type = 0;
    fi_eq_cm_entry entry{};
    const ssize_t got = ::fi_eq_sread(events.get(), &type, &entry, sizeof entry, event_max_ms, 0);
    if (got < 0) fail("fi_eq_sread", got);
    if (type != wanted) throw std::runtime_error("the pair over libfabric's tcp did not connect");
    return type == FI_CONNREQ ? entry.info : nullptr;
  }

  bool sleeps_;
  Info info_;
};

class FabricTcp final : public Baseline {
 public:
  FabricTcp(const BaselineShape& shape, bool descriptor)
      : shape_(shape), descriptor_(descriptor), peer_(shape.cores, [=](const Control& control) {
          TcpEnd end(shape, descriptor);
          end.accept(control);
          serve_exchange(end, control);
        }) {}

  std::string name() const override { return descriptor_ ? "libfabric tcp, descriptor" : "libfabric tcp"; }
  void open() override {
    peer_.wait_until_ready();
    end_.emplace(shape_, descriptor_);
    end_->connect(peer_.control());
  }
  std::chrono::nanoseconds run(const Plan& plan, Histogram& times) override {
    return run_exchange(*end_, peer_.control(), plan, times);
  }

 private:
  BaselineShape shape_;
  bool descriptor_;
  std::optional<TcpEnd> end_;
  Peer peer_;
};

}  // namespace

std::unique_ptr<Baseline> make_fabric_tcp(const BaselineShape& shape, bool descriptor) {
  return std::make_unique<FabricTcp>(shape, descriptor);
}

}  // namespace sublet::bench
