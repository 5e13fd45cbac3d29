#pragma once

#include "runtime/control/api.hpp"

/// The members of each body, once for both directions: `visit("name", member)` for each.
namespace sublet::api {

/// A request's member that has a default may be missing; everything else must be there.
enum class Presence { required, optional };

template <typename V>
void fields(V& visit, WorkerInfo& body) {
  visit("id", body.id);
  visit("endpoints", body.endpoints);
  visit("function", body.function);
}
template <typename V>
void fields(V& visit, NodeRegistration& body) {
  visit("name", body.name);
  visit("machine", body.machine);
  visit("cores", body.cores);
  visit("memory_bytes", body.memory_bytes);
  visit("worker_region_bytes", body.worker_region_bytes);
  visit("version", body.version);
  visit("gpus", body.gpus, Presence::optional);
}
template <typename V>
void fields(V& visit, NodeRegistered& body) {
  visit("node", body.node);
  visit("key", body.key);
  visit("heartbeat_ms", body.heartbeat_ms);
  visit("time_ms", body.time_ms);
}
template <typename V>
void fields(V& visit, Heartbeat::Serving& body) {
  visit("worker", body.worker);
  visit("lease", body.lease);
  visit("transport", body.transport, Presence::optional);
}
template <typename V>
void fields(V& visit, Heartbeat::Ended& body) {
  visit("worker", body.worker);
  visit("lease", body.lease);
  visit("reason", body.reason);
  visit("transport", body.transport, Presence::optional);
}
template <typename V>
void fields(V& visit, WorkerUsage& body) {
  visit("id", body.id);
  visit("lease", body.lease);
  visit("calls_started", body.calls_started);
  visit("calls", body.calls);
  visit("execution_ns", body.execution_ns);
  visit("hot_ns", body.hot_ns);
}
template <typename V>
void fields(V& visit, Heartbeat& body) {
  visit("unchanged", body.unchanged, Presence::optional);
  visit("ready", body.ready, Presence::optional);
  visit("serving", body.serving, Presence::optional);
  visit("ended", body.ended, Presence::optional);
  visit("draining", body.draining, Presence::optional);
  visit("cores", body.cores, Presence::optional);
  visit("memory_bytes", body.memory_bytes, Presence::optional);
  visit("lends_ms", body.lends_ms, Presence::optional);
  visit("usage", body.usage, Presence::optional);
}
template <typename V>
void fields(V& visit, HeartbeatAnswer& body) {
  visit("time_ms", body.time_ms);
  visit("resend", body.resend, Presence::optional);
}
template <typename V>
void fields(V& visit, Command& body) {
  visit("sequence", body.sequence);
  visit("kind", body.kind);
  visit("lease", body.lease);
  visit("function", body.function);
  visit("reason", body.reason);
  visit("worker", body.worker);
}
template <typename V>
void fields(V& visit, Commands& body) {
  visit("commands", body.commands);
}
template <typename V>
void fields(V& visit, FunctionInfo& body) {
  visit("id", body.id);
  visit("name", body.name);
  visit("version", body.version);
  visit("digest", body.digest);
  visit("bytes", body.bytes);
}
template <typename V>
void fields(V& visit, Functions& body) {
  visit("functions", body.functions);
}
template <typename V>
void fields(V& visit, Transports& body) {
  visit("require", body.require, Presence::optional);
  visit("prefer", body.prefer, Presence::optional);
  visit("forbid", body.forbid, Presence::optional);
}
template <typename V>
void fields(V& visit, LeaseRequest& body) {
  visit("function", body.function);
  visit("tenant", body.tenant, Presence::optional);
  visit("workers", body.workers, Presence::optional);
  visit("cores", body.cores, Presence::optional);
  visit("memory_bytes", body.memory_bytes, Presence::optional);
  visit("ttl_ms", body.ttl_ms, Presence::optional);
  visit("wait_ms", body.wait_ms, Presence::optional);
  visit("transports", body.transports, Presence::optional);
  visit("gpus", body.gpus, Presence::optional);
  visit("placement", body.placement, Presence::optional);
}
template <typename V>
void fields(V& visit, GrantedWorker& body) {
  visit("node", body.node);
  visit("node_name", body.node_name);
  visit("machine", body.machine);
  visit("worker", body.worker);
  visit("endpoints", body.endpoints);
  visit("token", body.token);
  visit("transport", body.transport, Presence::optional);
  visit("fallback", body.fallback, Presence::optional);
}
template <typename V>
void fields(V& visit, LeaseGrant& body) {
  visit("lease", body.lease);
  visit("function", body.function);
  visit("function_name", body.function_name);
  visit("ttl_ms", body.ttl_ms);
  visit("expiry_ms", body.expiry_ms);
  visit("workers", body.workers);
}
template <typename V>
void fields(V& visit, RenewRequest& body) {
  visit("ttl_ms", body.ttl_ms);
}
template <typename V>
void fields(V& visit, ReplaceRequest& body) {
  visit("node", body.node);
  visit("worker", body.worker);
  visit("wait_ms", body.wait_ms, Presence::optional);
}
template <typename V>
void fields(V& visit, LeaseInfo& body) {
  visit("lease", body.lease);
  visit("tenant", body.tenant);
  visit("function_name", body.function_name);
  visit("state", body.state);
  visit("reason", body.reason);
  visit("cores", body.cores);
  visit("memory_bytes", body.memory_bytes);
  visit("granted_ms", body.granted_ms);
  visit("expiry_ms", body.expiry_ms);
  visit("ended_ms", body.ended_ms);
  visit("transports", body.transports, Presence::optional);
  visit("workers", body.workers);
}
template <typename V>
void fields(V& visit, Leases& body) {
  visit("leases", body.leases);
}
template <typename V>
void fields(V& visit, NodeInfo& body) {
  visit("node", body.node);
  visit("name", body.name);
  visit("state", body.state);
  visit("cores", body.cores);
  visit("cores_leased", body.cores_leased);
  visit("memory_bytes", body.memory_bytes);
  visit("memory_leased", body.memory_leased);
  visit("workers_ready", body.workers_ready);
  visit("workers_serving", body.workers_serving);
  visit("gpus", body.gpus);
  visit("gpus_leased", body.gpus_leased);
  visit("silent_ms", body.silent_ms);
  visit("probation_ms", body.probation_ms);
  visit("version", body.version);
  visit("why", body.why);
  visit("ends_in_ms", body.ends_in_ms);
}
template <typename V>
void fields(V& visit, Nodes& body) {
  visit("nodes", body.nodes);
}
template <typename V>
void fields(V& visit, UsageRow& body) {
  visit("lease", body.lease);
  visit("worker", body.worker);
  visit("tenant", body.tenant);
  visit("function_name", body.function_name);
  visit("state", body.state);
  visit("leases", body.leases);
  visit("workers", body.workers);
  visit("calls_started", body.calls_started);
  visit("calls", body.calls);
  visit("execution_ns", body.execution_ns);
  visit("hot_ns", body.hot_ns);
  visit("lease_ns", body.lease_ns);
  visit("core_ns", body.core_ns);
  visit("gpu_ns", body.gpu_ns);
}
template <typename V>
void fields(V& visit, Usage& body) {
  visit("time_ms", body.time_ms);
  visit("rows", body.rows);
}
template <typename V>
void fields(V& visit, TenantInfo& body) {
  visit("tenant", body.tenant);
  visit("share", body.share);
  visit("cores_max", body.cores_max);
  visit("leases_max", body.leases_max);
  visit("cores", body.cores);
  visit("leases", body.leases);
  visit("waiting", body.waiting);
}
template <typename V>
void fields(V& visit, Tenants& body) {
  visit("tenants", body.tenants);
}
template <typename V>
void fields(V& visit, Health& body) {
  visit("status", body.status);
  visit("version", body.version);
  visit("time_ms", body.time_ms);
  visit("started_ms", body.started_ms);
}
template <typename V>
void fields(V& visit, ErrorBody& body) {
  visit("error", body.error);
  visit("message", body.message);
  visit("retry_after_ms", body.retry_after_ms, Presence::optional);
}

}  // namespace sublet::api
