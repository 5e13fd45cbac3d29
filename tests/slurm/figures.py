"""Prints what the hooks of scripts/slurm cost on this machine: medians and the longest, in milliseconds. No Slurm is needed.

Usage: SUBLET_BIN=... SUBLET_FUNCTIONS=... python3 tests/slurm/figures.py [ROUNDS]"""

import statistics
import subprocess
import sys
import time

from donated_lab import BIN, CORE_LIST, CPUS, SCRIPTS, Site
from lab import wait_until

GRACE_MS = 500
SPIN = 3


class Figures:
    def __init__(self, rounds):
        self.site = Site()
        self.rounds = rounds
        self.where = self.site.directory
        self.site.deploy_probe()
        knobs = {"MANAGER": self.site.url, "AGENT": f"{BIN}/sublet-agent", "AGENT_USER": "", "CORES": CPUS, "MEMORY_MIB": 4000,
                 "CORE_LIST": ",".join(map(str, CORE_LIST)), "RUN_DIR": f"{self.where}/run", "GRACE_MS": GRACE_MS,
                 "STATE_DIR": f"{self.where}/agents", "LOG_DIR": f"{self.where}/log"}
        settings = [word for key, value in knobs.items() for word in ("--set", f"{key}={value}")]
        subprocess.run([SCRIPTS / "install", "--dir", f"{self.where}/hooks", *settings], check=True)

    def hook(self, name):
        """Runs it as slurmd does; returns how long it took, in milliseconds."""
        env = {"SLURMD_NODENAME": "n1", "SLURM_JOB_ID": "1", "SLURM_JOB_CPUS_PER_NODE": str(CPUS), "SLURM_JOB_PARTITION": "main"}
        started = time.monotonic()
        subprocess.run([f"{self.where}/hooks/{name}"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
        return (time.monotonic() - started) * 1000

    def donated(self):
        self.hook("epilog")
        self.site.wait_ready("n1", CPUS)

    def busy(self):
        self.donated()
        call = self.site.call_in_background(SPIN, (60_000).to_bytes(4, "little"), "--cores", str(CPUS))
        wait_until(lambda: self.site.node("n1")["workers_serving"] == 1, "a call runs")
        return call

    def first_call(self):
        """How long the epilog took, and from its begin to the answer of a call by clients that try again and again."""
        started = time.monotonic()
        took = self.hook("epilog")
        while self.site.call(0).returncode != 0:
            pass
        return took, (time.monotonic() - started) * 1000

    def measure(self):
        found = {"prolog, nothing donated": [], "prolog, donated and idle": [], f"prolog, donated and busy, grace {GRACE_MS}": [],
                 "epilog": [], "epilog to first call answered": []}
        idle, donated, busy, epilog, first = found.values()
        for _ in range(self.rounds):
            idle.append(self.hook("prolog"))
            self.donated()
            donated.append(self.hook("prolog"))
            call = self.busy()
            busy.append(self.hook("prolog"))
            call.wait(30)
            took, answered = self.first_call()
            epilog.append(took)
            first.append(answered)
            self.hook("prolog")
        for name, times in found.items():
            print(f"{name}: median {statistics.median(times):.0f} ms, longest {max(times):.0f} ms of {len(times)}")

    def close(self):
        self.hook("prolog")
        self.site.close()


def main():
    figures = Figures(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
    try:
        figures.measure()
    finally:
        figures.close()


if __name__ == "__main__":
    main()
