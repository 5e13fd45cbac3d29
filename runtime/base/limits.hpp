#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

/// Every queue, loop, pool, message and timeout that crosses layers has its limit here.
namespace sublet::limits {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Data path.
inline constexpr std::uint32_t slots_log2_max = 12;  ///< A request word has 12 bits of slot.
inline constexpr std::uint32_t slots_max = 1U << slots_log2_max;
inline constexpr std::uint32_t slot_bytes_log2_min = 8;
inline constexpr std::uint32_t slot_bytes_log2_max = 26;
inline constexpr std::size_t message_bytes = 256;  ///< Text of a failed call, one area a slot.
inline constexpr std::size_t worker_region_bytes_max = std::size_t{16} << 30;

// Connections.
inline constexpr std::size_t connect_private_bytes = 56;  ///< librdmacm, reliable connected, connect request.
inline constexpr std::size_t accept_private_bytes = 64;   ///< Of librdmacm's 196: verbs needs the rest.
inline constexpr std::size_t reject_private_bytes = 148;  ///< librdmacm, reliable connected, reject.
inline constexpr std::size_t half_open_max = 32;          ///< Handshakes under way on one listener.
inline constexpr milliseconds handshake_max{2000};        ///< From a peer's connect to its whole hello.
inline constexpr milliseconds accept_max{60'000};  ///< From the whole hello to the answer: a model may load.
inline constexpr milliseconds heartbeat_interval{250};
inline constexpr milliseconds peer_silent_max{3000};  ///< Then the peer is lost.
inline constexpr milliseconds peer_lost_max{4000};    ///< A typed error reaches the owner by then.

// Calls.
inline constexpr milliseconds call_deadline_max{24 * 3600 * 1000};
inline constexpr milliseconds overrun_grace{50};  ///< A function past its deadline by more is ended.
inline constexpr milliseconds flush_max{200};     ///< For the last replies of a worker that leaves.
inline constexpr milliseconds long_call{4};  ///< A function that runs longer has its transport polled for it.

// Programs.
inline constexpr std::size_t config_bytes_max = 256 * 1024;

// Control plane.
inline constexpr std::size_t http_header_bytes_max = 16 * 1024;
inline constexpr std::size_t json_body_bytes_max = std::size_t{4} << 20;
inline constexpr std::size_t function_bytes_max = std::size_t{512} << 20;
inline constexpr std::size_t http_pairs_max = 64;      ///< Headers of a message, parameters of a query.
inline constexpr std::size_t http_clients_max = 8192;  ///< Connections beside those of the nodes.
inline constexpr std::size_t http_connections_max = 40'960;
inline constexpr std::size_t http_bodies_bytes_max = std::size_t{1} << 30;  ///< Of all requests under way.
inline constexpr std::size_t http_bodies_reserve_part = 8;  ///< Of these, kept from uploads for small bodies.
inline constexpr seconds http_idle_max{75};
inline constexpr seconds http_request_max{30};  ///< For a request or answer, and each http_step_bytes of it.
inline constexpr std::size_t http_step_bytes = std::size_t{1} << 20;
inline constexpr seconds http_linger_max{2};    ///< For a refused peer to read why.
inline constexpr seconds command_wait_max{25};  ///< An agent's long request is answered by then.
inline constexpr milliseconds node_heartbeat{1000};
inline constexpr milliseconds node_silent_max{5000};  ///< Then the node is lost.
inline constexpr seconds flap_memory{600};            ///< How long the loss of a node counts against it.
inline constexpr std::uint32_t flaps_free_max = 1;  ///< More losses than this within flap_memory: probation.
inline constexpr milliseconds probation_first{
    5000};  ///< Heard without a break before it is granted; doubles.
inline constexpr milliseconds probation_max{120'000};
inline constexpr milliseconds lending_notice{
    2000};  ///< A node is taken back so long before its owner wants it.
inline constexpr milliseconds lending_max{std::chrono::hours{24 * 366}};  ///< A later end is none.
inline constexpr milliseconds lending_least{1000};       ///< A node that is taken back sooner is not granted.
inline constexpr milliseconds agent_back_off_max{2000};  ///< Between tries to reach the manager.
inline constexpr milliseconds restart_grace{12'000};     ///< For nodes to find a restarted manager.
inline constexpr milliseconds lease_ms_max{24 * 3600 * 1000};
inline constexpr std::uint32_t lease_workers_max = 4096;
inline constexpr std::uint32_t nodes_max = 16'384;
inline constexpr std::uint32_t leases_max = 1'000'000;
inline constexpr std::size_t lease_waiters_max = 10'000;   ///< Requests that wait for capacity.
inline constexpr seconds lease_wait_max{600};              ///< How long one may wait.
inline constexpr std::size_t leases_ended_max = 10'000;    ///< Ended leases kept for listing.
inline constexpr std::size_t lease_ended_workers_max = 8;  ///< Of an ended lease that are kept for listing.
inline constexpr std::size_t lease_list_max = 10'000;      ///< In one answer.
inline constexpr int lease_misfits_max = 64;               ///< Waiting requests tried in vain at one change.
inline constexpr std::uint64_t usage_leases_max =
    1'000'000;                                           ///< Ended leases that are accounted for one by one.
inline constexpr std::uint64_t usage_fold_max = 2'000;   ///< Leases folded into totals in one transaction.
inline constexpr std::uint32_t usage_rows_max = 10'000;  ///< In one answer.
inline constexpr std::size_t usage_queries_max = 64;     ///< Waiting for their answer.
inline constexpr std::int64_t database_cache_kib = 16 * 1024;
inline constexpr std::int64_t database_page_bytes = 4096;
inline constexpr std::int64_t database_log_bytes = std::int64_t{32}
                                                   << 20;  ///< A longer log is copied into the file.
inline constexpr milliseconds database_sync_interval{
    20};  ///< Loss of power forgets no grant older than this.
inline constexpr std::uint32_t functions_max = 10'000;
inline constexpr std::uint32_t tenants_max = 65'536;
inline constexpr std::size_t node_workers_max = 4096;     ///< In one heartbeat.
inline constexpr std::size_t usage_kept_max = 65'536;     ///< Ended workers that no manager has answered for.
inline constexpr std::size_t node_usage_max = 8192;       ///< Accounts of workers in one heartbeat.
inline constexpr std::size_t node_commands_max = 65'536;  ///< Not yet taken by a node; then it is lost.
inline constexpr std::size_t name_bytes_max = 64;         ///< Of a node, function, version or tenant.

// What Slurm says of its nodes.
inline constexpr std::size_t slurm_output_bytes_max = std::size_t{64} << 20;  ///< Of one of its commands.
inline constexpr seconds slurm_command_max{10};                               ///< For one of them.
inline constexpr std::size_t slurm_hosts_max = 65'536;                        ///< Nodes, or names in a list.
inline constexpr std::size_t slurm_mentions_max = std::size_t{4} << 20;       ///< Of nodes by all jobs.
inline constexpr seconds slurm_plan_late_max{60};   ///< A start that is longer overdue was planned in vain.
inline constexpr seconds slurm_picture_max{300};    ///< Older, what Slurm last said holds no more.
inline constexpr seconds slurm_reconcile_max{100};  ///< Between two looks.

static_assert(slurm_picture_max >= slurm_reconcile_max + 2 * slurm_command_max,
              "one failed look lifts nothing");
static_assert(heartbeat_interval * 4 <= peer_silent_max, "one lost heartbeat must not lose a peer");
static_assert(peer_silent_max < peer_lost_max);
static_assert(node_heartbeat * 3 <= node_silent_max, "one lost heartbeat must not lose a node");
static_assert(probation_first <= probation_max && probation_max < flap_memory);
static_assert(agent_back_off_max + node_silent_max < restart_grace, "a restart must not lose a node");
static_assert(command_wait_max < http_idle_max);
static_assert(http_connections_max >= 2 * std::size_t{nodes_max} + http_clients_max,
              "an agent keeps one connection for heartbeats and one for commands");
static_assert(function_bytes_max <= http_bodies_bytes_max - http_bodies_bytes_max / http_bodies_reserve_part);
static_assert(lease_wait_max <= lease_ms_max);

}  // namespace sublet::limits
