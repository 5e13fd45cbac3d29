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
/// invalid_argument and the member's name: what a peer sends is hostile until checked. Of LeaseRequest
/// all but `function` may be missing, and `wait_ms` of ReplaceRequest: the defaults below hold.
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
};
struct NodeRegistered {
  std::uint64_t node = 0;
  std::string key;  ///< 64 hexadecimal digits: the SecretKey that this node's tokens are signed with.
  std::uint64_t heartbeat_ms = 0;
  std::uint64_t time_ms = 0;  ///< The manager's clock (Unix, ms).
};

/// POST /v1/nodes/{id}/heartbeat: the whole truth about the node's workers, replacing what was said before.
struct Heartbeat {
  std::vector<WorkerInfo> ready;  ///< Waiting for a lease.
  struct Serving {
    std::uint32_t worker = 0;
    std::uint64_t lease = 0;
  };
  std::vector<Serving> serving;
  /// Workers that ended since the last heartbeat that was answered.
  struct Ended {
    std::uint32_t worker = 0;
    std::uint64_t lease = 0;  ///< 0: it served none.
    std::string reason;       ///< "released", "expired", "revoked", "drained", "crashed", "client_lost",
                              ///< "out_of_memory", "overrun".
  };
  std::vector<Ended> ended;
  bool draining = false;
};
struct HeartbeatAnswer {
  std::uint64_t time_ms = 0;
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

/// POST /v1/leases
struct LeaseRequest {
  std::string function;  ///< "name@version", or "name" for the version deployed last.
  std::string tenant = "default";
  std::uint32_t workers = 1;
  std::uint32_t cores = 1;         ///< For each worker.
  std::uint64_t memory_bytes = 0;  ///< For each worker; 0: the node's default.
  std::uint64_t ttl_ms = 60'000;   ///< Time to live without renewal.
  std::uint64_t wait_ms = 0;       ///< How long the request may wait for capacity before it is refused.
  std::vector<std::string>
      transports;  ///< In order of preference; empty: the client's own choice among what is offered.
};

/// One worker of a lease: where it is and what opens it.
struct GrantedWorker {
  std::uint64_t node = 0;
  std::string node_name;
  std::string machine;
  std::uint32_t worker = 0;
  std::map<std::string, std::string> endpoints;
  std::string token;  ///< wire::SignedToken, 96 hexadecimal digits.
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
  std::string reason;  ///< Why it ended: "released", "expired", "revoked", "node_lost"; empty while active.
  std::uint32_t cores = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t expiry_ms = 0;
  std::vector<GrantedWorker> workers;  ///< Without tokens.
};
struct Leases {
  std::vector<LeaseInfo> leases;
};

/// GET /v1/nodes
struct NodeInfo {
  std::uint64_t node = 0;
  std::string name;
  std::string state;  ///< "up", "draining" or "lost".
  std::uint32_t cores = 0;
  std::uint32_t cores_leased = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t memory_leased = 0;
  std::uint32_t workers_ready = 0;
  std::uint32_t workers_serving = 0;
  std::uint64_t silent_ms = 0;
};
struct Nodes {
  std::vector<NodeInfo> nodes;
};

/// Every refusal: HTTP status 4xx or 5xx with this body.
struct ErrorBody {
  std::string error;    ///< sublet::name(Errc)
  std::string message;  ///< What to do.
};

template <typename T>
[[nodiscard]] std::string to_json(const T& body);
/// @retval Errc::invalid_argument with the member that is wrong.
template <typename T>
[[nodiscard]] Result<T> from_json(std::string_view text);

}  // namespace sublet::api
