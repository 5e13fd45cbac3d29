#include <array>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "benchmarks/baselines/exchange.hpp"
#include "benchmarks/baselines/fabric_end.hpp"

namespace sublet::bench {
namespace {

struct Name {
  std::array<char, 256> bytes{};
};

Info find_provider(const Library& library) {
  const Info hints(library.dupinfo(nullptr), {&library});
  if (!hints) throw std::runtime_error("libfabric has no memory for hints");
  hints->caps = FI_MSG | FI_RMA | FI_WRITE | FI_REMOTE_WRITE;
  hints->ep_attr->type = FI_EP_RDM;
  hints->domain_attr->mr_mode = FI_MR_VIRT_ADDR;
  hints->domain_attr->threading = FI_THREAD_DOMAIN;
  hints->domain_attr->cq_data_size = sizeof(std::uint64_t);
  hints->fabric_attr->prov_name = ::strdup("shm");
  fi_info* found = nullptr;
  const int code = library.getinfo(library.version(), nullptr, nullptr, 0, hints.get(), &found);
  if (code != 0) throw std::runtime_error(library.failed("fi_getinfo(shm)", code).detail());
  return Info(found, {&library});
}

class ShmEnd : public FabricEnd {
 public:
  explicit ShmEnd(const BaselineShape& shape) : FabricEnd(shape) {
    const Info info = find_provider(*library);
    open_domain(*info);
    fi_av_attr attributes{};
    attributes.type = FI_AV_TABLE;
    fid_av* opened = nullptr;
    check("fi_av_open", ::fi_av_open(domain.get(), &attributes, &opened, nullptr));
    peers.reset(opened);
    open_completions(FI_WAIT_NONE);
    open_endpoint(*info, peers->fid);
  }

  /// Both ends: each tells the other its name and memory.
  void meet(const Control& control) {
    Name own;
    std::size_t length = own.bytes.size();
    check("fi_getname", ::fi_getname(&endpoint->fid, own.bytes.data(), &length));
    control.send(own);
    const auto other = control.receive<Name>();
    if (::fi_av_insert(peers.get(), other.bytes.data(), 1, &peer, 0, nullptr) != 1)
      throw std::runtime_error("fi_av_insert(shm): the peer's name is refused");
    control.send(own_memory());
    remote = control.receive<Remote>();
  }
};

class FabricShm final : public Baseline {
 public:
  explicit FabricShm(const BaselineShape& shape)
      : shape_(shape), peer_(shape.cores, [=](const Control& control) {
          ShmEnd end(shape);
          say_ready(control);
          end.meet(control);
          serve_exchange(end, control);
        }) {}

  std::string name() const override { return "libfabric shm"; }
  void open() override {
    peer_.wait_until_ready();
    end_.emplace(shape_);
    end_->meet(peer_.control());
  }
  std::chrono::nanoseconds run(const Plan& plan, Histogram& times) override {
    return run_exchange(*end_, peer_.control(), plan, times);
  }

 private:
  BaselineShape shape_;
  std::optional<ShmEnd> end_;
  Peer peer_;
};

}  // namespace

std::unique_ptr<Baseline> make_fabric_shm(const BaselineShape& shape) {
  return std::make_unique<FabricShm>(shape);
}

}  // namespace sublet::bench
