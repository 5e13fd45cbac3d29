# shellcheck shell=bash
# Some knobs are read by one hook only.
# shellcheck disable=SC2034
# What the hooks share. Slurm gives a hook no PATH and no HOME, reads its output to the end, and kills its process group
# when it exits. The knobs are in `conf` beside this file; docs/operations/slurm.md says what each does.
PATH=/usr/bin:/bin:/usr/sbin:/sbin
HERE=${BASH_SOURCE[0]%/*}

MANAGER='' AGENT=/usr/bin/sublet-agent AGENT_CONFIG='' AGENT_USER=sublet
CORES='' CORE_LIST='' MEMORY_MIB=''
PARTIAL=ids SCONTROL=/usr/bin/scontrol SCONTROL_S=1 SKIP_PARTITIONS=pilot
GRACE_MS=2000 HANDBACK_S=5 KILL_S=3 GOODBYE_MS=100 LOCK_S=10 STALE_MIN=5
RUN_DIR=/run/sublet STATE_DIR=/var/lib/sublet-slurm LOG_DIR=/var/log/sublet
# shellcheck source=/dev/null
[[ -r $HERE/conf ]] && . "$HERE/conf"
[[ -z ${SLURM_CONF:-} ]] || export SLURM_CONF

NODE=${SLURMD_NODENAME:-${HOSTNAME%%.*}}
JOB=${SLURM_JOB_ID:-}
RUN=$RUN_DIR/$NODE           # Marks and locks: on a tmpfs, so that a reboot leaves none.
STATE=$STATE_DIR/$NODE       # The agent's, which outlives it: what workers counted, functions.
MARKS=$RUN/jobs
MARKER=SUBLET_NODE_AGENT=$RUN  # In the environment of the agent and all that it starts.

note() { echo "$EPOCHREALTIME $NODE ${0##*/} job=${JOB:--} $*" >>"$LOG_DIR/hooks.log"; }

# hook_arguments TEXT ARGUMENTS...: prints the usage, or complains, when there are arguments: Slurm gives none.
hook_arguments() {
  case ${2:-} in
    '') return ;;
    --help | -h) echo "Usage: scripts/slurm/${0##*/}"$'\n\n'"$1"; exit 0 ;;
    *) echo "scripts/slurm/${0##*/}: unknown argument '$2'" >&2; exit 2 ;;
  esac
}

prepare() {
  umask 022
  mkdir -p "$MARKS" "$LOG_DIR" "$STATE_DIR" || return 1
  if [[ ! -d $STATE ]]; then
    mkdir -m 700 "$STATE" || return 1
    [[ -z $AGENT_USER ]] || chown -h "$AGENT_USER" "$STATE" || { rmdir "$STATE"; return 1; }
  fi
  local last
  if [[ -z $CORES ]]; then
    read -r last </sys/devices/system/cpu/online
    CORES=$(($(expand "$last" | wc -l)))
  fi
  if [[ -z $MEMORY_MIB ]]; then
    read -r _ last _ </proc/meminfo
    MEMORY_MIB=$((last * 3 / 4096))
  fi
  # A descriptor that never has anything: `read -t` on it sleeps without a process.
  exec {nap}<> <(:)
}
nap() { read -r -t 0.005 -u "$nap" || :; }

# One hook at a time: slurmd runs those of different jobs at once.
lock_node() {
  exec {node_lock}>"$RUN/lock"
  flock -w "$LOCK_S" "$node_lock" || note "the node's lock is held for longer than LOCK_S=$LOCK_S s; going on without it"
}

# ---- which cores and how much memory no job holds ----

# expand LIST: 0-2,5 as 0 1 2 5. A list may come from a job's name, which is its user's to choose: it has an end.
expand() {
  local part i last
  for part in ${1//,/ }; do
    last=${part#*-}
    for ((i = ${part%-*}; i <= last && i < 4096; i++)); do echo "$i"; done
  done
}

# in_hostlist NODE LIST: whether n1 is in n[1-3,5],m7; lists that this cannot read contain nothing.
in_hostlist() {
  local rest=$2 item name ranges part low high number
  while [[ $rest =~ ^([^][,]+)(\[([0-9,-]+)\])?(,|$) ]]; do
    item=${BASH_REMATCH[0]} name=${BASH_REMATCH[1]} ranges=${BASH_REMATCH[3]}
    rest=${rest:${#item}}
    if [[ -z $ranges ]]; then [[ $1 == "$name" ]] && return 0; continue; fi
    number=${1#"$name"}
    [[ $1 == "$name"* && $number =~ ^[0-9]+$ ]] || continue
    for part in ${ranges//,/ }; do
      low=${part%-*} high=${part#*-}
      ((${#number} == ${#low} && 10#$number >= 10#$low && 10#$number <= 10#$high)) && return 0
    done
  done
  return 1
}

# What the job takes of this node: "CORES MIB", CORES being a list or =COUNT; "all" when that is not known.
share_of_job() {
  local per_node=${SLURM_JOB_CPUS_PER_NODE:-} count
  # Jobs with different counts on their nodes do not say here which is this node's.
  [[ $per_node =~ ^([0-9]+)(\(x[0-9]+\))?$ ]] && count=${BASH_REMATCH[1]}
  if [[ $PARTIAL == whole || ${count:-0} -ge $CORES ]]; then echo all; return; fi
  if [[ $PARTIAL == count && -n ${count:-} ]]; then echo "=$count $((MEMORY_MIB * count / CORES))"; return; fi
  local said nodes ids memory
  said=$(timeout "$SCONTROL_S" "$SCONTROL" show job -d -o "$JOB" 2>/dev/null) || note "scontrol does not say which cores the job has"
  while [[ $said =~ [[:space:]]Nodes=([^[:space:]]+)[[:space:]]CPU_IDs=([0-9,-]+)[[:space:]]Mem=([0-9]+)(.*) ]]; do
    nodes=${BASH_REMATCH[1]} ids=${BASH_REMATCH[2]} memory=${BASH_REMATCH[3]} said=${BASH_REMATCH[4]}
    if in_hostlist "$NODE" "$nodes"; then
      ((memory > 0)) || break  # Slurm does not count memory: it may take all.
      (($(expand "$ids" | wc -l) >= ${count:-CORES})) || break  # Not what Slurm has told the hook.
      echo "$ids $memory"
      return
    fi
  done
  echo all
}

# job_is_over JOB: whether Slurm says that it has ended or that it knows of none such; false when Slurm says nothing.
job_is_over() {
  local said
  said=$(timeout "$SCONTROL_S" "$SCONTROL" show job -o "$1" 2>&1 </dev/null)
  if [[ $said =~ [[:space:]]JobState=([A-Z_]+) ]]; then
    [[ ${BASH_REMATCH[1]} =~ ^(COMPLETED|CANCELLED|FAILED|TIMEOUT|NODE_FAIL|PREEMPTED|BOOT_FAIL|DEADLINE|OUT_OF_MEMORY|REVOKED)$ ]]
  else
    [[ $said == *'Invalid job id'* ]]
  fi
}

# Sets idle_cores (a list) and idle_mib to what no mark holds; idle_cores is empty when that is nothing.
count_idle() {
  local mark cores mib core counted=0
  local -A taken=()
  idle_cores='' idle_mib=$MEMORY_MIB
  [[ -e $RUN/no-donation ]] && return
  for mark in "$MARKS"/*; do
    [[ -e $mark ]] || continue
    cores='' mib=''
    read -r cores mib <"$mark"
    case $cores in
      all | '') return ;;
      =*) counted=$((counted + ${cores#=})) ;;
      *) for core in $(expand "$cores"); do taken[$core]=1; done ;;
    esac
    idle_mib=$((idle_mib - mib))
  done
  ((idle_mib > 0)) || return
  # Those that are known by their number only are taken from the front, as Slurm does on an empty node.
  for ((core = 0; core < CORES; core++)); do
    [[ -n ${taken[$core]:-} ]] && continue
    if ((counted > 0)); then counted=$((counted - 1)); continue; fi
    idle_cores+=${idle_cores:+,}$core
  done
}

# ---- the agent: RUN/started says its pid and when it began, as /proc does ----
# Nothing is read in STATE, which is the agent's user's: functions run as that user and could name any process there.

# began_at PID: sets began to when the process was started, in ticks; empty when it has ended.
began_at() {
  local line fields
  began=''
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return
  read -r -a fields <<<"${line##*) }"
  [[ ${fields[0]} == [ZX] ]] || began=${fields[19]}
}

# Sets agent to the pid of the agent that runs; empty when there is none.
find_agent() {
  local said began
  agent=''
  { read -r agent said <"$RUN/started"; } 2>/dev/null
  [[ -n $agent ]] || return
  began_at "$agent"
  [[ -n $began && $began == "$said" ]] || agent=''
}
agent_runs() { local agent; find_agent; [[ -n $agent ]]; }

# agent_gone_within SECONDS: waits for its end.
agent_gone_within() {
  local end=$((${EPOCHREALTIME/./} + $1 * 1000000))
  while agent_runs; do
    ((${EPOCHREALTIME/./} < end)) || return 1
    nap
  done
}

# Calls start it with the node's lock held, and what it shall lend as idle_cores and idle_mib.
start_agent() {
  local pid end began options=(--name "$NODE" --state-dir "$STATE" --cores "$CORES" --memory "$MEMORY_MIB"
    --lend-cores "$idle_cores" --lend-memory "$idle_mib" --drain-ms "$GRACE_MS" --goodbye-ms "$GOODBYE_MS")
  [[ -n $MANAGER ]] && options+=(--manager "$MANAGER")
  [[ -n $AGENT_CONFIG ]] && options+=(--config "$AGENT_CONFIG")
  [[ -n $CORE_LIST ]] && options+=(--core-list "$CORE_LIST")
  local as=()
  [[ -n $AGENT_USER ]] && as=(setpriv --reuid "$AGENT_USER" --regid "$AGENT_USER" --init-groups --no-new-privs)
  : >"$RUN/started"
  rm -f "$STATE/orders.sock"
  ulimit -l unlimited 2>/dev/null
  # setsid has returned before anything is forked: slurmd, which kills this hook's group, cannot come in between.
  # shellcheck disable=SC2016
  pid=$(env -i PATH="$PATH" LANG=C HOME=/ "$MARKER" setsid --wait "${as[@]}" bash -c \
    '"$@" 3>&- & echo $! >&3' start "$AGENT" "${options[@]}" \
    3>&1 >>"$LOG_DIR/agent.log" 2>&1 </dev/null {node_lock}>&- {nap}>&-)
  end=$((${EPOCHREALTIME/./} + 800000))
  began_at "$pid"
  echo "$pid $began" >"$RUN/started"
  while ((${EPOCHREALTIME/./} < end)) && agent_runs; do
    if [[ -S $STATE/orders.sock ]]; then  # From then on it takes orders.
      note "agent $pid lends cores $idle_cores and $idle_mib MiB"
      return 0
    fi
    nap
  done
  note "the agent did not start: see $LOG_DIR/agent.log"
  kill_family
  return 1
}

# is_of_agent_user PID: a job may have the marker in its environment, too.
is_of_agent_user() {
  local key uid rest
  while read -r key uid rest; do
    if [[ $key == Uid: ]]; then [[ $uid == "$agent_uid" ]]; return; fi
  done <"/proc/$1/status"
  return 1
} 2>/dev/null

# Live processes that the agent has started: what carries the marker, the agent, and their descendants: it adopts them.
family() {
  local agent_uid=$EUID
  [[ -z $AGENT_USER ]] || agent_uid=$(id -u -- "$AGENT_USER")
  local -A parent=()
  local file line pid name_end fields agent found=1
  find_agent
  for file in /proc/[0-9]*/stat; do
    { read -r line <"$file"; } 2>/dev/null || continue
    pid=${line%% *} name_end=${line##*) }
    read -r -a fields <<<"$name_end"
    [[ ${fields[0]} == [ZX] ]] || parent[$pid]=${fields[1]}
  done
  local -A kin=()
  [[ -n $agent ]] && kin[$agent]=1
  while read -r file; do
    pid=${file#/proc/} pid=${pid%/environ}
    is_of_agent_user "$pid" && kin[$pid]=1
  done < <(grep -lzsxF "$MARKER" /proc/[0-9]*/environ)
  while ((found)); do
    found=0
    for pid in "${!parent[@]}"; do
      [[ -z ${kin[$pid]:-} && -n ${kin[${parent[$pid]}]:-} ]] && kin[$pid]=1 found=1
    done
  done
  echo "${!kin[@]}"
}

# Kills all of it, the agent last so that it goes on adopting; 1 when something of it would not die in KILL_S.
kill_family() {
  local agent pid left end
  end=$((${EPOCHREALTIME/./} + KILL_S * 1000000))
  find_agent
  [[ -n $agent ]] && kill -STOP "$agent"
  while left=$(family) && [[ -n $left ]]; do
    if ((${EPOCHREALTIME/./} > end)); then note "cannot be ended: $left"; return 1; fi
    for pid in $left; do
      [[ $pid == "$agent" && $left != "$agent" ]] || kill -KILL "$pid" 2>/dev/null
    done
    nap
  done
  agent_gone_within "$KILL_S" || return 1
  rm -f "$RUN/started"
}

# Ends the agent: by its own leave within HANDBACK_S, else by force. 1 when processes could not be ended.
end_agent() {
  local agent
  if agent_runs; then
    find_agent
    [[ -n $agent ]] && kill -TERM "$agent"
    if agent_gone_within "$HANDBACK_S"; then rm -f "$RUN/started"; return 0; fi
    note "agent $agent has not left within HANDBACK_S=$HANDBACK_S s: killing it"
    kill_family
  elif [[ -e $RUN/started ]]; then
    kill_family  # It has died, perhaps not all that functions had started.
  fi
}

# lend_idle MS: makes the agent that runs lend what is idle, no more; returns when the rest is free.
lend_idle() {
  timeout -s KILL "$((($1 + 1999) / 1000))" "$AGENT" lend --state-dir "$STATE" --cores "$idle_cores" --memory "$idle_mib" \
    --wait-ms "$1" >/dev/null 2>>"$LOG_DIR/hooks.log" {node_lock}>&- {nap}>&-
}

# Starts the agent, or lets it lend more, when something is idle.
donate() {
  count_idle
  if [[ -z $idle_cores ]]; then
    note "nothing is idle"
    if [[ -e $RUN/no-donation ]]; then end_agent; fi
    return
  fi
  if agent_runs; then
    lend_idle 400 && { note "lends cores $idle_cores and $idle_mib MiB"; return; }
    note "the agent does not answer: killing it"
  fi
  [[ ! -e $RUN/started ]] || kill_family || return
  start_agent
}

# Gives back what the marks hold; 1 when processes could not be ended.
hand_back() {
  count_idle
  if [[ -n $idle_cores ]] && agent_runs; then
    lend_idle "$((HANDBACK_S * 1000))" && return 0
    note "the agent does not give back in time: killing it"
    kill_family
  else
    end_agent
  fi
}
