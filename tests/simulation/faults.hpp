#pragma once

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace sublet::simulation {

/// What the model does wrong on purpose, so that the checks are seen to find it.
enum class Fault : std::uint8_t {
  none,
  answers_before_writing,  ///< The manager promises what a crash makes it forget.
  forgets_held_workers,    ///< The store loses what workers hold.
  loses_end_commands,      ///< Nodes are not told that a lease has ended.
  worker_outlives_expiry,  ///< A worker goes on serving when its token has run out.
  agent_keeps_ended_open,  ///< An agent acknowledges the end of a lease and goes on admitting its clients.
  reuses_ids,              ///< A restarted manager counts from the beginning.
  forgets_wishes,          ///< The store loses by which transports a lease may be served.
  forgets_ends,            ///< Grants do not heed when a node's owner wants it back.
  forgets_its_clock,       ///< A restarted manager believes the wall clock, which has been set.
};

struct NamedFault {
  Fault fault;
  const char* name;
};
inline constexpr std::array named_faults{
    NamedFault{Fault::answers_before_writing, "answers-before-writing"},
    NamedFault{Fault::forgets_held_workers, "forgets-held-workers"},
    NamedFault{Fault::loses_end_commands, "loses-end-commands"},
    NamedFault{Fault::worker_outlives_expiry, "worker-outlives-expiry"},
    NamedFault{Fault::agent_keeps_ended_open, "agent-keeps-ended-open"},
    NamedFault{Fault::reuses_ids, "reuses-ids"},
    NamedFault{Fault::forgets_wishes, "forgets-wishes"},
    NamedFault{Fault::forgets_ends, "forgets-ends"},
    NamedFault{Fault::forgets_its_clock, "forgets-its-clock"},
};

/// Something that must hold does not.
class Violation : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
inline void require(bool holds, const char* what) {
  if (!holds) throw Violation(what);
}

}  // namespace sublet::simulation
