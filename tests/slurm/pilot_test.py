"""Pilot jobs: an ordinary user's preemptible jobs that lend what they get, and what keeps them queued."""

import pathlib
import signal
import subprocess
import sys
import unittest

from lab import Lab, wait_until

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from sublet_site import BIN, ECHO, PATIENCE_S, SPIN, Site, number  # noqa: E402  pylint: disable=wrong-import-position

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "slurm"
CORES = 4
AGENT_OPTIONS = "--oversubscribe --warm 1 --warm-loaded 1 --region 1 --drain-ms 1000 --transports tcp"


class PilotTest(unittest.TestCase):
    def setUp(self):
        self.lab = Lab(nodes=2, cpus=CORES)
        self.addCleanup(self.lab.close)
        self.site = Site(env=self.lab.env)
        self.addCleanup(self.site.close)
        # Bound to the lab for its cleaning up, and not to the site, whose close() takes what it started itself.
        self.env = dict(self.lab.env, SUBLET_MANAGER=self.site.url, SUBLET_AGENT=f"{BIN}/sublet-agent",
                        SUBLET_AGENT_OPTIONS=AGENT_OPTIONS, SUBLET_REPLENISH_DIR=f"{self.lab.directory}/replenish")
        self.replenisher = None

    def replenish(self, *options):
        log = open(f"{self.lab.directory}/log/replenish.out", "ab")
        self.addCleanup(log.close)
        self.replenisher = subprocess.Popen(
            [SCRIPTS / "replenish", "--partition", "pilot", "--period", "1", *options, "--", "--exclusive",
             f"--output={self.lab.directory}/log/pilot.%j.out"], env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(self.end_replenisher)

    def end_replenisher(self):
        self.replenisher.kill()
        self.replenisher.wait()

    def stop(self):
        subprocess.run([SCRIPTS / "replenish", "--stop"], env=self.env, check=True, timeout=PATIENCE_S * 4)

    def pilots(self, state):
        """Numbers of the pilot jobs in a state, with their lengths."""
        listed = self.lab.run("squeue", "-h", "--name=sublet-pilot", f"--states={state}", "-o", "%A %k").splitlines()
        return {int(line.split()[0]): line.split()[1] for line in listed}

    def lent(self):
        return {node["name"]: node for node in self.site.get("/v1/nodes")["nodes"] if node["state"] != "lost"}

    def wait_lent(self, count):
        return wait_until(lambda: len([node for node in self.lent().values() if node["workers_ready"]]) == count and self.lent(),
                          lambda: f"{count} nodes are lent: {self.lent()}\n{self.lab.logs()}")

    def test_pilots_give_way_to_a_job_and_come_back(self):
        self.replenish("--lengths", "30,2", "--queued", "1")
        lent = self.wait_lent(2)
        self.assertEqual({name.split(":")[0] for name in lent}, {"n1", "n2"})
        self.assertEqual({int(name.split(":")[1]) for name in lent}, set(self.pilots("R")))
        self.assertTrue(all(0 < node["ends_in_ms"] <= 30 * 60_000 for node in lent.values()), lent)
        wait_until(lambda: sorted(self.pilots("PD").values()) == ["sublet:2", "sublet:30"], "one of each length waits")
        self.site.deploy_probe()
        self.assertEqual(self.site.call(ECHO, b"lent", check=True).stdout, b"lent")

        # Both nodes go under calls that the drain has time for and others that wait behind them, and one that it has not.
        short = self.site.call_in_background(SPIN, number(200), "--workers", "2", "--concurrency", "8", "--repeat", "60",
                                             "--deadline", "120000", "--wait", "60")
        long = self.site.call_in_background(SPIN, number(600_000), "--deadline", "900000", "--wait", "60")
        wait_until(lambda: sum(node["workers_serving"] for node in self.lent().values()) == 3,
                   lambda: f"both have their workers: {self.lent()}")
        job = self.lab.submit("sleep 3", "-N2", "--exclusive", "-t", "1")
        wait_until(lambda: self.lab.jobs().get(job) == "RUNNING", lambda: f"the job runs\n{self.lab.logs()}")
        self.assertFalse(self.lent())
        self.assertEqual(long.wait(PATIENCE_S), 6)  # It had begun, so nobody may begin it again.
        self.assertIsNone(short.poll(), "the calls were over before the job came")
        self.assertEqual(self.lab.wait_over(job), "COMPLETED")
        self.wait_lent(2)
        self.assertEqual(short.wait(PATIENCE_S), 0, self.site.logs())  # Every one of them was answered.
        self.assertEqual(self.site.call(ECHO, b"again", check=True).stdout, b"again")

        self.stop()
        self.assertFalse(self.pilots("PD,R,CG"))
        self.assertEqual(self.replenisher.wait(PATIENCE_S), 0)
        wait_until(lambda: not self.lent(), "the agents have left")

    def test_there_are_never_more_than_told_and_a_signal_ends_them(self):
        self.replenish("--lengths", "30,2", "--queued", "5", "--most", "3")
        wait_until(lambda: len(self.pilots("PD,R")) == 3, "three pilots are there")
        self.wait_lent(2)
        self.assertEqual(len(self.pilots("PD,R")), 3)
        again = subprocess.run([SCRIPTS / "replenish"], env=self.env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        self.assertEqual(again.returncode, 2)
        self.assertIn("--stop", again.stderr)
        self.replenisher.send_signal(signal.SIGTERM)
        self.assertEqual(self.replenisher.wait(PATIENCE_S), 0)
        wait_until(lambda: not self.pilots("PD,R,CG"), "all are cancelled")


if __name__ == "__main__":
    unittest.main(verbosity=2)
