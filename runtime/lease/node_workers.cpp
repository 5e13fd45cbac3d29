// The part of LeaseTable that keeps a node's workers, its sums and the candidates for placement together.

#include "runtime/base/assert.hpp"
#include "runtime/lease/lease_table.hpp"

namespace sublet::lease {
namespace {

void list_ready(Node& node, const Worker& worker) {
  node.ready[worker.info.function].insert(worker.info.id);
}

void unlist_ready(Node& node, const Worker& worker) {
  const auto ready = node.ready.find(worker.info.function);
  ready->second.erase(worker.info.id);
  if (ready->second.empty()) node.ready.erase(ready);
}

std::uint32_t& count(Node& node, Worker::State state) {
  return node.count[static_cast<std::size_t>(state)];
}

}  // namespace

/// A new worker, or what a ready one says of itself now.
Worker& LeaseTable::add_worker(Node& node, const api::WorkerInfo& info) {
  const auto [at, fresh] = node.workers.try_emplace(info.id);
  Worker& worker = at->second;
  // Most of what a node says it has said before.
  if (!fresh && worker.info.function == info.function && worker.info.endpoints == info.endpoints)
    return worker;
  if (!fresh && worker.state == Worker::State::ready) unlist_ready(node, worker);
  worker.info = info;
  if (fresh) ++count(node, Worker::State::ready);
  if (worker.state == Worker::State::ready) list_ready(node, worker);
  changes_.capacity = changes_.capacity || fresh;
  candidates_.update(node);
  return worker;
}

/// @pre It holds nothing.
void LeaseTable::remove_worker(Node& node, WorkerId id) {
  const auto found = node.workers.find(id);
  SUBLET_ASSERT(found->second.state == Worker::State::ready);
  unlist_ready(node, found->second);
  --count(node, Worker::State::ready);
  node.workers.erase(found);
  candidates_.update(node);
}

void LeaseTable::set_state(Node& node, Worker& worker, Worker::State state) {
  if (worker.state == state) return;
  if (worker.state == Worker::State::ready) unlist_ready(node, worker);
  --count(node, worker.state);
  worker.state = state;
  ++count(node, state);
  if (state == Worker::State::ready) list_ready(node, worker);
  if (worker.lease != 0 && !worker.foreign) dirty_held_.insert({node.id, worker.info.id});
  candidates_.update(node);
}

void LeaseTable::hold(Node& node, Worker& worker, LeaseId lease, const Resources& share, Time now) {
  SUBLET_ASSERT(worker.state == Worker::State::ready && node.free().covers(share));
  worker.lease = lease;
  worker.since = now;
  worker.cores = share.cores;
  worker.gpus = share.gpus;
  worker.memory_bytes = share.memory_bytes;
  node.held += share;
  set_state(node, worker, Worker::State::granted);
}

/// What the worker held is free; it is left as a ready one, and the caller removes one that has gone.
void LeaseTable::give_back(Node& node, Worker& worker) {
  if (worker.lease != 0 && !worker.foreign) dirty_held_.insert({node.id, worker.info.id});
  changes_.capacity = changes_.capacity || worker.lease != 0;
  node.held -= {worker.cores, worker.gpus, worker.memory_bytes};
  node.foreign -= worker.foreign ? 1 : 0;
  if (!worker.transport.empty()) --connected_[worker.transport];
  const Worker::State state = worker.state;
  worker = Worker{.info = std::move(worker.info), .state = state, .listed_ready = worker.listed_ready};
  set_state(node, worker, Worker::State::ready);
  candidates_.update(node);
}

}  // namespace sublet::lease
