"""A manager that looks at what a real Slurm wants of its nodes."""

import os
import pathlib
import re
import signal
import sys
import unittest
import urllib.request

from lab import Lab, wait_until

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from sublet_site import ECHO, PATIENCE_S, Site  # noqa: E402  pylint: disable=wrong-import-position

CORES = 4
PERIOD_S = 1
# The tests lend cores that the machine need not have, and two workers are enough for them.
AGENT = ("--cores", str(CORES), "--oversubscribe", "--memory", "512", "--warm", "2", "--warm-loaded", "1", "--region", "1")


class ReconcileTest(unittest.TestCase):
    def setUp(self):
        self.lab = Lab(nodes=3, cpus=CORES)
        self.addCleanup(self.lab.close)
        self.site = Site(manager_options=("--slurm-reconcile", str(PERIOD_S)), env=self.lab.env)
        self.addCleanup(self.site.close)
        for node in self.lab.nodes:
            self.site.start_agent(node, *AGENT)
        self.site.deploy_probe()
        self.wait_looks(1)

    def metric(self, name):
        with urllib.request.urlopen(self.site.url + "/metrics", timeout=PATIENCE_S) as answer:
            found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.MULTILINE)
        return float(found.group(1)) if found else None

    def wait_looks(self, more, result="seen"):
        name = f'sublet_slurm_looks_total{{result="{result}"}}'
        enough = self.metric(name) + more
        wait_until(lambda: self.metric(name) >= enough, lambda: f"{more} looks were {result}\n{self.site.logs()}")

    def wait_node(self, name, state, why=""):
        def is_so():
            node = self.site.node(name)
            return node and node["state"] == state and re.search(why, node["why"]) and node

        return wait_until(is_so, lambda: f"{name} is {state}: {self.site.node(name)}\n{self.site.logs()}")

    def call_on(self, node):
        """Whether a call is answered there: all other nodes are taken out."""
        others = [other for other in self.lab.nodes if other != node]
        for other in others:
            self.site.sublet("cordon", other, check=True)
        try:
            return self.site.call(ECHO, b"here").stdout == b"here"
        finally:
            for other in others:
                self.site.sublet("uncordon", other, check=True)

    def test_a_drained_node_is_cordoned_until_it_is_resumed(self):
        self.lab.run("scontrol", "update", "NodeName=n1", "State=DRAIN", "Reason=fan broken")
        self.wait_node("n1", "cordoned", "^Slurm drains it: fan broken$")
        self.assertFalse(self.call_on("n1"))
        self.assertIn(b"fan broken", self.site.sublet("nodes", check=True).stdout)
        self.assertEqual(self.metric('sublet_nodes_ordered{order="cordon"}'), 1)
        self.lab.run("scontrol", "update", "NodeName=n1", "State=RESUME")
        self.wait_node("n1", "up", "^$")
        self.assertTrue(self.call_on("n1"))

    def test_a_reserved_and_a_maintained_node_are_cordoned(self):
        user = self.lab.run("id", "-un").strip()
        for node, flags in (("n1", "maint"), ("n2", "ignore_jobs")):
            self.lab.run("scontrol", "create", "reservation", f"ReservationName=of_{node}", "StartTime=now", "Duration=30",
                         f"Nodes={node}", f"Flags={flags}", f"Users={user}")
        self.wait_node("n1", "cordoned", "maintenance")
        self.wait_node("n2", "cordoned", "reservation")
        self.lab.run("scontrol", "delete", "ReservationName=of_n1")
        self.wait_node("n1", "up", "^$")

    def test_leases_end_before_a_planned_job(self):
        # n2 and n3 are taken for two minutes; a job of all three is planned behind that, so n1 waits for it.
        self.lab.submit("sleep 600", "-w", "n2,n3", "-N2", "--exclusive", "-t", "2")
        for name in ("n2", "n3"):
            self.site.sublet("cordon", name, check=True)
        planned = self.lab.submit("true", "-N3", "--exclusive", "-t", "1")
        node = self.wait_node("n1", "up", f"^Slurm plans job {planned} there$")
        self.assertTrue(0 < node["ends_in_ms"] <= 121_000, node)
        self.assertTrue(self.call_on("n1"))
        self.lab.run("scancel", str(planned))
        self.wait_node("n1", "up", "^$")

    def test_what_a_job_has_without_a_hand_back_is_taken_from_its_lease(self):
        # No hook runs here, so nobody tells the agent of n1.
        status, grant = self.site.post("/v1/leases", {"function": "probe@1", "workers": 3, "ttl_ms": 600_000})
        self.assertEqual(status, 201, grant)
        lost = next(worker for worker in grant["workers"] if worker["node_name"] == "n1")

        def leased_on():
            return sorted(worker["node_name"] for worker in self.site.get(f"/v1/leases/{grant['lease']}")["workers"])

        self.assertEqual(leased_on(), ["n1", "n2", "n3"])
        job = self.lab.submit("sleep 600", "-w", "n1", "-n2", "-N1")
        self.wait_node("n1", "cordoned", f"^Slurm runs job {job} on cores that it lends$")
        self.assertEqual(leased_on(), ["n2", "n3"])
        status, other = self.site.post(f"/v1/leases/{grant['lease']}/replace",
                                       {"node": lost["node"], "worker": lost["worker"], "wait_ms": 20_000})
        self.assertEqual(status, 201, other)
        self.assertIn(other["workers"][0]["node_name"], ("n2", "n3"))
        self.assertGreaterEqual(self.metric("sublet_workers_taken_back_total"), 1)
        self.lab.run("scancel", str(job))
        self.wait_node("n1", "up", "^$")

    def test_what_slurm_last_said_holds_while_it_is_away(self):
        self.lab.run("scontrol", "update", "NodeName=n1", "State=DRAIN", "Reason=test")
        self.wait_node("n1", "cordoned")
        self.lab.kill("slurmctld", signal.SIGTERM)
        self.wait_looks(2, "failed")
        self.wait_node("n1", "cordoned", "^Slurm drains it")
        self.assertEqual(self.site.logs().count("cannot see what Slurm wants"), 1)
        self.lab.start()
        self.wait_looks(1)
        self.assertIn("Slurm answers again", self.site.logs())


class HostileTest(unittest.TestCase):
    def test_commands_that_hang_or_lie_order_nothing_and_leave_nothing(self):
        site = Site()
        self.addCleanup(site.close)
        folder = pathlib.Path(site.directory)
        (folder / "sinfo").write_text(f"#!/bin/sh\necho $$ > {folder}/sinfo.pid\nexec sleep 600\n", encoding="ascii")
        (folder / "squeue").write_text("#!/bin/sh\n", encoding="ascii")
        for name in ("sinfo", "squeue"):
            (folder / name).chmod(0o755)
        site.manager.terminate()
        site.manager.wait(PATIENCE_S)
        site.manager_options = ("--slurm-reconcile", "1", "--slurm-commands", str(folder))
        site.start_manager()
        pid = wait_until(lambda: (folder / "sinfo.pid").exists() and (folder / "sinfo.pid").read_text().strip(), "sinfo runs")
        site.manager.terminate()
        self.assertEqual(site.manager.wait(PATIENCE_S), 0)
        self.assertFalse(os.path.exists(f"/proc/{pid}"))
        (folder / "sinfo").write_text("#!/bin/sh\nyes '{\"nodes\":[' \n", encoding="ascii")
        site.start_manager()
        wait_until(lambda: "cannot see what Slurm wants" in site.logs(), lambda: f"it is told\n{site.logs()}")
        self.assertEqual(site.get("/readyz"), {"status": "ok"})


if __name__ == "__main__":
    unittest.main(verbosity=2)
