#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.hpp"

/// The bodies of the manager's HTTP API as types. docs/api.yaml is their reference; JSON member names
/// equal the field names. Parsing refuses wrong types, missing members and unknown members with
/// invalid_argument and the member's name: what a peer sends is hostile until checked. A request's member
/// with a default below may be missing: then the default holds.
namespace sublet::api {

/// One worker process as its agent publishes it, once it listens and its memory is registered.
struct WorkerInfo {
  std::uint32_t id = 0;  ///< Unique on its node, never used again.
  std::map<std::string, std::string>
      endpoints;  ///< Transport name to address: {"tcp": "127.0.0.1:4711", "shm": "/run/.../w7.sock"}.
  std::uint32_t function = 0;  ///< The function that it has loaded already; 0: none.
};

/// POST /v1/nodes
struct NodeRegistration {
  std::string name;
  std::string machine;  ///< Boot id of the machine: "shm" endpoints work for clients that have the same.
  std::uint32_t cores = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t worker_region_bytes = 0;
  std::string version;
  std::uint32_t gpus = 0;
};
struct NodeRegistered {
  std::uint64_t node = 0;
  std::string key;  ///< 64 hexadecimal digits: the SecretKey that this node's tokens are signed with.
  std::uint64_t heartbeat_ms = 0;
  std::uint64_t time_ms = 0;  ///< The manager's clock (Unix, ms).
};

/// What the worker processes of one lease on one node have done: totals since the worker's start, so that
/// saying it twice, late or after a restart changes nothing.
struct WorkerUsage {
  std::uint64_t id = 0;  ///< Random, below 2^53: this worker process and no other, on any node, ever.
  std::uint64_t lease = 0;
  std::uint64_t calls_started = 0;  ///< Handed to the function.
  std::uint64_t calls = 0;          ///< Of these, those that the function returned from.
  std::uint64_t execution_ns = 0;   ///< Inside the function.
  std::uint64_t hot_ns = 0;         ///< Polling for the next call.
};

/// POST /v1/nodes/{id}/heartbeat: the whole truth about the node's workers, replacing what was said before.
/// One that ends something or accounts for an ended worker is answered once that is on disk.
struct Heartbeat {
  /// `ready`, `serving` and `draining` are as in the heartbeat before, and empty here. Only for a manager
  /// that did not ask to say everything again.
  bool unchanged = false;
  std::vector<WorkerInfo> ready;  ///< Waiting for a lease.
  struct Serving {
    std::uint32_t worker = 0;
    std::uint64_t lease = 0;
    std::string transport;  ///< By which its client has come; empty: it has not.
  };
  std::vector<Serving> serving;
  /// Workers that ended since the last heartbeat that was answered.
  struct Ended {
    std::uint32_t worker = 0;
    std::uint64_t lease = 0;  ///< 0: it served none.
    std::string reason;       ///< "released", "expired", "revoked", "drained", "crashed", "client_lost",
                              ///< "out_of_memory", "overrun".
    std::string transport;    ///< By which its client had come; empty: none had.
  };
  std::vector<Ended> ended;
  bool draining = false;
  /// What the node lends now, where that is no longer what it registered; 0: as before.
  std::uint32_t cores = 0;
  std::uint64_t memory_bytes = 0;
  /// How long from now on the node lends anything at all; 0: no end is known. Said when not `unchanged`.
  std::uint64_t lends_ms = 0;
  /// Of workers whose numbers have changed since a heartbeat was answered; an ended worker's last ones.
  std::vector<WorkerUsage> usage;
};
struct HeartbeatAnswer {
  std::uint64_t time_ms = 0;
  bool resend = false;  ///< Say everything in the next heartbeat: the manager does not have it.
};

/// GET /v1/nodes/{id}/commands?after=N: answered when there is one or after command_wait_max.
struct Command {
  std::uint64_t sequence = 0;
  std::string kind;  ///< "end_lease" (lease, reason), "end_worker" (lease, worker, reason: one worker
                     ///< that its lease has replaced), "fetch_function" (function), "drop_function"
                     ///< (function), "drain", "undrain".
  std::uint64_t lease = 0;
  std::uint32_t function = 0;
  std::string reason;
  std::uint32_t worker = 0;
};
struct Commands {
  std::vector<Command> commands;
};

/// PUT /v1/functions/{name}/{version}: the body is the library; header `Sublet-Digest: <sha-256 hex>`.
struct FunctionInfo {
  std::uint32_t id = 0;  ///< Number of name@version; 1 upwards, never used again.
  std::string name;
  std::string version;
  std::string digest;  ///< SHA-256, 64 hexadecimal digits.
  std::uint64_t bytes = 0;
};
struct Functions {
  std::vector<FunctionInfo> functions;
};

/// By which transports a lease's workers may be reached, by name; see runtime/control/transports.hpp.
struct Transports {
  std::vector<std::string> require;  ///< By no other than these; empty: by any.
  std::vector<std::string> prefer;   ///< By these, the first most, where they are to be had.
  std::vector<std::string> forbid;   ///< By none of these.
};

/// POST /v1/leases
struct LeaseRequest {
  std::string function;  ///< "name@version", or "name" for the version deployed last.
  std::string tenant = "default";
  std::uint32_t workers = 1;
  std::uint32_t cores = 1;         ///< For each worker.
  std::uint64_t memory_bytes = 0;  ///< For each worker; 0: the node's default.
  std::uint64_t ttl_ms = 60'000;   ///< Time to live without renewal.
  std::uint64_t wait_ms = 0;       ///< How long the request may wait for capacity before it is refused.
  Transports transports;
  std::uint32_t gpus = 0;  ///< For each worker.
  std::string placement;   ///< "spread" over nodes or "pack" onto few; empty: the manager's default.
};

/// One worker of a lease: where it is and what opens it.
struct GrantedWorker {
  std::uint64_t node = 0;
  std::string node_name;
  std::string machine;
  std::uint32_t worker = 0;
  std::map<std::string, std::string> endpoints;
  std::string token;      ///< wire::SignedToken, 96 hexadecimal digits.
  std::string transport;  ///< By which the client has come, as far as its node has said; empty in a grant.
  std::string fallback;   ///< Why that is not what the lease prefers; empty: it is.
};
struct LeaseGrant {
  std::uint64_t lease = 0;
  std::uint32_t function = 0;
  std::string function_name;  ///< "name@version"
  std::uint64_t ttl_ms = 0;
  std::uint64_t expiry_ms = 0;  ///< Unix time by the manager's clock.
  std::vector<GrantedWorker> workers;
};

/// POST /v1/leases/{id}/renew: new tokens with a later expiry for the same workers.
struct RenewRequest {
  std::uint64_t ttl_ms = 0;
};
/// POST /v1/leases/{id}/replace: another worker in the place of one that was lost.
struct ReplaceRequest {
  std::uint64_t node = 0;
  std::uint32_t worker = 0;
  std::uint64_t wait_ms = 0;
};

/// GET /v1/leases, GET /v1/leases/{id}
struct LeaseInfo {
  std::uint64_t lease = 0;
  std::string tenant;
  std::string function_name;
  std::string state;   ///< "active" or "ended".
  std::string reason;  ///< Why it ended: "released", "expired", "revoked", "node_lost", "not_recorded" (the
                       ///< manager could not write it down, and refused it); empty while active.
  std::uint32_t cores = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t granted_ms = 0;
  std::uint64_t expiry_ms = 0;
  std::uint64_t ended_ms = 0;  ///< 0 while active.
  Transports transports;
  std::vector<GrantedWorker> workers;  ///< Without tokens.
};
struct Leases {
  std::vector<LeaseInfo> leases;
};

/// GET /v1/nodes
struct NodeInfo {
  std::uint64_t node = 0;
  std::string name;
  std::string state;  ///< "up", "cordoned" (no new leases), "draining", "probation" (it was lost too often
                      ///< to be granted at once) or "lost".
  std::uint32_t cores = 0;
  std::uint32_t cores_leased = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t memory_leased = 0;
  std::uint32_t workers_ready = 0;
  std::uint32_t workers_serving = 0;
  std::uint32_t gpus = 0;
  std::uint32_t gpus_leased = 0;
  std::uint64_t silent_ms = 0;
  std::uint64_t probation_ms = 0;  ///< Until it is granted again, if it keeps being heard.
  std::string version;             ///< Of its agent.
  std::string why;                 ///< Why it is or will be cordoned; empty: it is not.
  std::uint64_t ends_in_ms = 0;    ///< Until all that it lends is taken back; 0: no end is known.
};
struct Nodes {
  std::vector<NodeInfo> nodes;
};

/// GET /v1/usage?by=lease|worker|tenant|function&tenant=T&function=NAME[@VERSION]&format=json|csv
struct UsageRow {
  std::uint64_t lease = 0;    ///< by=lease and by=worker; otherwise 0.
  std::uint64_t worker = 0;   ///< by=worker: WorkerUsage::id; otherwise 0.
  std::string tenant;         ///< Empty in by=function.
  std::string function_name;  ///< "name@version"; empty in by=tenant.
  std::string state;          ///< by=lease: "active" or the reason why it ended.
  std::uint64_t leases = 0;
  std::uint64_t workers = 0;  ///< Worker processes that served, replaced ones included.
  std::uint64_t calls_started = 0;
  std::uint64_t calls = 0;
  std::uint64_t execution_ns = 0;
  std::uint64_t hot_ns = 0;
  std::uint64_t lease_ns = 0;  ///< Each worker from its grant to its end, summed.
  std::uint64_t core_ns = 0;   ///< The same times the cores of the worker.
  std::uint64_t gpu_ns = 0;    ///< The same times its GPUs.
};
struct Usage {
  std::uint64_t time_ms = 0;  ///< When this was so.
  std::vector<UsageRow> rows;
};

/// GET /v1/tenants: those that hold or wait for something, or have a share or quota of their own.
struct TenantInfo {
  std::string tenant;
  std::uint32_t share = 1;       ///< Weight among those that wait.
  std::uint32_t cores_max = 0;   ///< 0: no quota.
  std::uint32_t leases_max = 0;  ///< 0: no quota.
  std::uint32_t cores = 0;       ///< Held now.
  std::uint32_t leases = 0;
  std::uint32_t waiting = 0;  ///< Requests.
};
struct Tenants {
  std::vector<TenantInfo> tenants;
};

/// GET /healthz
struct Health {
  std::string status;  ///< "ok"
  std::string version;
  std::uint64_t time_ms = 0;  ///< The clock of leases; see docs/operations.md on jumps of the wall clock.
  std::uint64_t started_ms = 0;
};

/// Every refusal: HTTP status 4xx or 5xx with this body.
struct ErrorBody {
  std::string error;                 ///< sublet::name(Errc)
  std::string message;               ///< What to do.
  std::uint64_t retry_after_ms = 0;  ///< When what is missing may be had, by what is known now; 0: unknown.
};

template <typename T>
[[nodiscard]] std::string to_json(const T& body);
/// @retval Errc::invalid_argument with the member that is wrong.
template <typename T>
[[nodiscard]] Result<T> from_json(std::string_view text);

}  // namespace sublet::api
