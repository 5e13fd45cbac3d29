"""Calls at full speed over three donated nodes while a hundred jobs of random size come and go."""

import collections
import os
import random
import re
import signal
import struct
import subprocess
import time
import unittest

from donated_lab import BIN, CORE_LIST, FUNCTIONS, CPUS, DonatedLab, cores_of
from lab import alive

JOBS = 100
QUEUED_MAX = 6  # At once: enough that nodes are shared, and few enough that some are idle.
CLIENTS = 2
ENTRY = struct.Struct("<QIIBBHxxxx")  # benchmarks/chaos/ledger.hpp
CALLS_MAX = 1 << 19
HANDBACK_MS = 5_000  # The hooks' HANDBACK_S: what takes longer was taken by force.
UNUSED, BEGUN, REFUSED, OK, FUNCTION_FAILED, NOT_STARTED, _, _, CANCELLED, _, WRONG = range(11)
ONCE = 1


def fault_of(started, finished, kind, outcome):
    """What is wrong with one call; None when nothing is."""
    if kind == ONCE and started > 1:
        return "ran twice"
    if finished > started:
        return "finished more often than it started"
    if outcome == BEGUN:
        return "has no final status"
    if outcome == OK and (finished == 0 or kind == ONCE and started != 1):
        return "is ok and did not run as it should"
    if outcome == REFUSED and started or outcome in (NOT_STARTED, CANCELLED) and kind == ONCE and started:
        return "ran although its status says that it did not"
    if outcome in (FUNCTION_FAILED, WRONG):
        return "failed although the function does not"
    return None


def affinity(pid):
    try:
        return os.sched_getaffinity(pid)
    except ProcessLookupError:
        return set()


def about(pid):
    """Its name, state, parent and the time since it started, for who has to find out what it is."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            before, _, after = file.read().rpartition(")")
    except OSError:
        return "gone"
    state, parent = after.split()[:2]
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(after.split()[19]) / os.sysconf("SC_CLK_TCK")
    return f"{before.partition('(')[2]}, state {state}, parent {parent}, {age:.2f} s old"


class TrafficTest(unittest.TestCase):
    def setUp(self):
        self.site = DonatedLab(nodes=3)
        self.addCleanup(self.site.close)
        self.lab = self.site.lab
        self.site.wait_donated()
        self.site.site.sublet("deploy", "chaos@1", os.path.join(FUNCTIONS, "chaos.so"), check=True)
        self.violations = []

    def start_clients(self, seed):
        self.ledgers = [f"{self.site.directory}/ledger.{number}" for number in range(CLIENTS)]
        self.clients = []
        for number, ledger in enumerate(self.ledgers):
            with open(ledger, "wb") as file:
                file.truncate(CALLS_MAX * ENTRY.size)
            self.clients.append(subprocess.Popen(
                [os.path.join(BIN, "sublet-bench"), "chaos-client", "--manager", self.site.site.url, "--ledger", ledger, "--tenant",
                 f"t{number}", "--transport", ("shm", "tcp")[number % 2], "--seed", str(seed + number)],
                env=self.site.site.env, stdin=subprocess.DEVNULL))
            self.addCleanup(self.clients[-1].wait)
            self.addCleanup(self.clients[-1].kill)

    def calls(self):
        for ledger in self.ledgers:
            with open(ledger, "rb") as file:
                for _ in range(CALLS_MAX):
                    _, started, finished, kind, outcome, _ = ENTRY.unpack(file.read(ENTRY.size))
                    if outcome == UNUSED:
                        break
                    yield started, finished, kind, outcome

    def watch(self):
        """Looks once at each job that runs: what it has is neither lent nor held, and no process of an agent may use it.

        Jobs that have the whole of a node are stricter: nothing of an agent is alive there. A virtual node's cores are
        played by the machine's in turn, so that of processes it can be said only when those are apart."""
        listed = self.lab.run("scontrol", "show", "job", "-d", "-o").splitlines()
        running = collections.defaultdict(dict)
        for line in listed:
            words = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if words.get("JobState") == "RUNNING" and os.path.exists(f"{self.site.directory}/log/runs.{words['JobId']}"):
                running[words["Nodes"]][words["JobId"]] = cores_of(words["CPU_IDs"])
        for node, jobs in running.items():
            lent, held = self.site.lent(node)
            family = {pid: affinity(pid) for pid in self.site.family(node)}
            taken = {job: cores for job, cores in jobs.items() if self.still_runs(job)}
            allowed = {CORE_LIST[core] for core in set(range(CPUS)) - set().union(*taken.values())}
            self.looks += len(taken)
            for job, cores in taken.items():
                if cores & (lent | held):
                    self.violations.append(f"job {job} on {node} has {cores}, lent {lent}, held {held}")
            # A program that an epilog has just started binds itself first of all: look twice.
            beyond = [pid for pid, cores in family.items() if not cores <= allowed]
            if beyond and taken:
                time.sleep(0.05)
            self.violations += [f"{time.time():.3f}: process {pid} ({about(pid)}) on {node} may use {family[pid]} and now {affinity(pid)}, "
                                f"lent {lent}, held {held}, jobs {taken}" for pid in beyond
                                if all(map(self.still_runs, taken)) and taken and alive(pid) and not affinity(pid) <= allowed]

    def hand_backs(self):
        """How long each prolog took that gave something back, in milliseconds, and its exit status."""
        with open(f"{self.site.directory}/log/hooks.log", encoding="ascii") as file:
            return [(int(took), int(status)) for took, status in re.findall(r" prolog .* handed back .* in (\d+) ms, status (\d)", file.read())]

    def still_runs(self, job):
        return not os.path.exists(f"{self.site.directory}/log/over.{job}")

    def test_no_call_is_lost_and_no_job_is_disturbed(self):
        seed = int(os.environ.get("SUBLET_TEST_SEED", random.SystemRandom().randrange(1 << 16)))
        print(f"SUBLET_TEST_SEED={seed}")
        chance = random.Random(seed)
        self.looks = 0
        self.start_clients(seed)
        jobs = []
        log = f"{self.site.directory}/log"
        while len(jobs) < JOBS or self.lab.jobs():
            while len(jobs) < JOBS and len(self.lab.jobs()) < QUEUED_MAX:
                size = chance.choice((1, 1, 2, 3, CPUS))
                jobs.append(self.lab.submit(
                    f"touch {log}/runs.$SLURM_JOB_ID; sleep 0.{chance.randrange(1, 8)}; touch {log}/over.$SLURM_JOB_ID",
                    "-n1", f"-c{size}", f"--nodelist={chance.choice(self.lab.nodes)}"))
            self.watch()
        self.assertEqual(self.violations, [], "\n".join(self.violations) + self.site.logs())
        self.assertGreater(self.looks, JOBS // 10)
        self.assertEqual(collections.Counter(self.lab.job(job)["JobState"] for job in jobs), {"COMPLETED": JOBS}, self.site.logs())
        self.assertEqual({self.lab.job(job)["Restarts"] for job in jobs}, {"0"})
        self.assertEqual(self.site.drained(), {})
        handed_back = self.hand_backs()
        self.assertGreater(len(handed_back), JOBS // 2)
        self.assertEqual([each for each in handed_back if each[0] > HANDBACK_MS or each[1] != 0], [])
        self.site.wait_donated()
        for client in self.clients:
            client.send_signal(signal.SIGTERM)
            self.assertEqual(client.wait(60), 0)
        faults = collections.Counter()
        ends = collections.Counter()
        for call in self.calls():
            ends[call[3]] += 1
            faults[fault_of(*call)] += 1
        took = sorted(each[0] for each in handed_back)
        print(f"{sum(ends.values())} calls by outcome {dict(ends)}, {self.looks} looks at running jobs; {len(took)} nodes handed back, "
              f"median {took[len(took) // 2]} ms, longest {took[-1]} ms")
        del faults[None]
        self.assertEqual(faults, {})
        self.assertGreater(ends[OK], 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
