"""A Slurm whose idle nodes are donated to a Sublet site by the hooks of scripts/slurm."""

import os
import pathlib
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../integration"))
from sublet_site import BIN, FUNCTIONS, Site  # pylint: disable=wrong-import-position
from lab import Lab, alive, wait_until

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "slurm"
CPUS = 4  # Of a node; the machine's own cores play them in turn.
MACHINE = sorted(os.sched_getaffinity(0))
CORE_LIST = [MACHINE[place % len(MACHINE)] for place in range(CPUS)]
CONFIGURATION = """\
Prolog={directory}/prolog
Epilog={directory}/epilog
HealthCheckProgram={directory}/health
HealthCheckInterval=2
HealthCheckNodeState=IDLE
"""


class DonatedLab:
    """The nodes n1, n2, ... are donated once a health check has come by. `knobs` are those of the hooks."""

    def __init__(self, nodes=3, **knobs):
        self.site = Site()
        try:
            self.lab = Lab(nodes=nodes, cpus=CPUS, configuration=CONFIGURATION, before_start=lambda where: self.install(where, knobs))
        except BaseException:
            self.site.close()
            raise
        self.directory = self.lab.directory

    def install(self, where, knobs):
        self.directory = where
        self.use_agent(os.path.join(BIN, "sublet-agent"))
        knobs = {"MANAGER": self.site.url, "AGENT": f"{where}/agent", "AGENT_USER": "", "CORES": CPUS,
                 "CORE_LIST": ",".join(map(str, CORE_LIST)), "MEMORY_MIB": 4000, "RUN_DIR": f"{where}/run",
                 "SLURM_CONF": f"{where}/slurm.conf", "STATE_DIR": f"{where}/agents", "LOG_DIR": f"{where}/log", "GRACE_MS": 500, "STALE_MIN": 1} | knobs
        self.install_hooks(*(f"--set={key}={value}" for key, value in knobs.items()))

    def install_hooks(self, *options):
        words = [word for option in options for word in option.split("=", 1)]
        hooks = [word for hook in ("prolog", "epilog", "health") for word in (f"--{hook}", f"{self.directory}/{hook}")]
        subprocess.run([SCRIPTS / "install", "--dir", f"{self.directory}/hooks", *words, *hooks], check=True)

    def use_agent(self, program):
        """Agents that are started from now on are this program."""
        os.symlink(program, f"{self.directory}/agent.new")
        os.replace(f"{self.directory}/agent.new", f"{self.directory}/agent")

    def agent(self, node):
        """The pid of the node's agent; 0 when none runs."""
        try:
            pid = int(pathlib.Path(f"{self.directory}/agents/{node}/lock").read_text(encoding="ascii") or 0)
        except OSError:
            return 0
        return pid if pid and alive(pid) else 0

    def wait_donated(self, *nodes):
        for node in nodes or self.lab.nodes:
            wait_until(lambda n=node: self.agent(n) and (self.site.node(n) or {}).get("workers_ready", 0) > 0 and
                       self.site.node(n)["cores"] == CPUS, lambda n=node: f"{n} is donated\n{self.logs()}")

    def lent(self, node):
        """Sets of core numbers, as Slurm counts them: what the node's agent lends, what leases hold."""
        said = subprocess.run([os.path.join(BIN, "sublet-agent"), "lent", "--state-dir", f"{self.directory}/agents/{node}"],
                              capture_output=True, text=True, check=False).stdout
        words = dict(word.split("=") for word in said.split())
        return cores_of(words.get("cores", "")), cores_of(words.get("held", ""))

    def family(self, node):
        """Live processes that the node's agent has started, itself included."""
        marker = f"SUBLET_NODE_AGENT={self.directory}/run/{node}\0".encode()
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if marker in environment(pid) and alive(pid)]

    def drained(self):
        return {node: state for node, state in self.lab.states().items() if state.startswith("drain") or state == "down"}

    def logs(self):
        return self.lab.logs() + self.site.logs()

    def close(self):
        try:
            self.lab.close()
        finally:
            self.site.close()


def environment(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/environ").read_bytes() + b"\0"
    except OSError:
        return b""


def cores_of(text):
    """The numbers of a list such as 0-2,5."""
    cores = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores
