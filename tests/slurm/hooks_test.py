"""Idle nodes are donated and taken back, whatever becomes of agent, manager, slurmd, slurmctld and hooks meanwhile."""

import os
import pathlib
import signal
import subprocess
import unittest

from donated_lab import BIN, CPUS, SCRIPTS, DonatedLab, cores_of
from lab import alive, wait_until

# A job that fails when an agent, or anything that one has started, is on its node.
ALONE = """
for environment in /proc/[0-9]*/environ; do
  grep -qzsxF "SUBLET_NODE_AGENT=$RUN/$SLURMD_NODENAME" $environment && exit 1
done
exit 0
"""


class HooksTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.site = DonatedLab(nodes=2, HANDBACK_S=1)
        cls.addClassCleanup(cls.site.close)
        cls.lab = cls.site.lab
        cls.lab.env["RUN"] = f"{cls.site.directory}/run"
        cls.site.site.deploy_probe()

    def setUp(self):
        self.site.use_agent(os.path.join(BIN, "sublet-agent"))
        self.site.wait_donated()

    def tearDown(self):
        self.assertEqual(self.site.drained(), {}, self.site.logs())
        # A hook that looks at the lock of an agent must not keep it from one that starts.
        self.assertNotIn("another agent uses", pathlib.Path(self.site.directory, "log/agent.log").read_text(encoding="utf-8"))

    def alone(self, node="n1"):
        """Runs a job that takes the whole node and must find it free."""
        self.assertEqual(self.lab.wait_over(self.lab.submit(ALONE, "-w", node, "--exclusive")), "COMPLETED", self.site.logs())

    def start_job(self, *options, node="n1"):
        """A job that runs now and ends once it is told to; returns its number and what tells it."""
        flag = pathlib.Path(self.site.directory, f"flag.{len(os.listdir(self.site.directory))}")
        job = self.lab.submit(f"touch {flag}.runs; while [ ! -e {flag} ]; do sleep 0.05; done", "-w", node, *options)
        wait_until(lambda: os.path.exists(f"{flag}.runs"), lambda: f"the job runs\n{self.site.logs()}")
        self.addCleanup(flag.touch)
        return job, flag.touch

    def test_a_job_finds_its_node_free_and_leaves_it_donated(self):
        before = self.site.agent("n1")
        self.alone()
        self.site.wait_donated("n1")
        self.assertNotEqual(self.site.agent("n1"), before)
        self.assertTrue(alive(self.site.agent("n2")))

    def test_back_to_back_jobs_each_find_it_free(self):
        jobs = [self.lab.submit(ALONE, "-w", "n1", "--exclusive") for _ in range(8)]
        self.assertEqual({self.lab.wait_over(job) for job in jobs}, {"COMPLETED"}, self.site.logs())

    def test_half_a_node_stays_donated_beside_jobs_for_the_other_half(self):
        first, end_first = self.start_job("-n2", "--mem=1000")
        mine = cores_of(self.lab.job(first)["CPU_IDs"])
        lent, _ = self.site.lent("n1")
        self.assertEqual(lent, set(range(CPUS)) - mine)
        self.assertEqual(wait_until(lambda: self.site.site.node("n1")["cores"] == 2 and self.site.site.node("n1"),
                                    "the manager knows")["memory_bytes"], 3000 << 20)
        second, end_second = self.start_job("-n1")
        self.assertEqual(self.site.lent("n1")[0],
                         set(range(CPUS)) - mine - cores_of(self.lab.job(second)["CPU_IDs"]))
        end_first()
        self.lab.wait_over(first)
        wait_until(lambda: len(self.site.lent("n1")[0]) == 3, "what the first job had is lent again")
        end_second()
        self.lab.wait_over(second)
        self.site.wait_donated("n1")

    def test_a_job_waits_no_longer_than_the_grace_for_calls(self):
        calls = [self.site.site.call_in_background(3, (60_000).to_bytes(4, "little"), "--cores", str(CPUS)) for _ in range(2)]
        wait_until(lambda: all(len(self.site.lent(node)[1]) == CPUS for node in self.lab.nodes), "both nodes are leased")
        self.alone("n1")
        self.alone("n2")
        for call in calls:
            self.assertNotEqual(call.wait(60), None)

    def test_an_agent_that_hangs_is_killed(self):
        agent = self.site.agent("n1")
        os.kill(agent, signal.SIGSTOP)
        self.alone()
        self.assertFalse(alive(agent))

    def test_an_agent_that_hangs_is_killed_for_half_a_node_too(self):
        family = self.site.family("n1")
        os.kill(self.site.agent("n1"), signal.SIGSTOP)
        job, end = self.start_job("-n2")
        self.assertFalse([pid for pid in family if alive(pid)])
        end()
        self.lab.wait_over(job)

    def test_an_agent_that_ignores_sigterm_is_killed_with_its_children(self):
        self.site.use_agent(pathlib.Path(__file__).resolve().parent / "stubborn_agent")
        self.alone()
        stubborn = wait_until(lambda: self.site.agent("n1"), "the other agent is there")
        child = int(pathlib.Path(self.site.directory, "agents/n1/child").read_text(encoding="ascii"))
        self.assertTrue(alive(child))
        self.site.use_agent(os.path.join(BIN, "sublet-agent"))
        self.alone()
        self.assertFalse(alive(stubborn))
        self.assertFalse(alive(child))

    def test_an_agent_that_dies_is_replaced_and_what_functions_left_is_not_in_the_way(self):
        self.site.site.call(7, b"8642", "--cores", str(CPUS), check=True)
        node = wait_until(lambda: [node for node in self.lab.nodes for pid in self.site.family(node) if is_sleep(pid)],
                          "a function left a process")[0]
        agent = self.site.agent(node)
        os.kill(agent, signal.SIGKILL)
        wait_until(lambda: self.site.agent(node) not in (0, agent), "a health check has started another agent")
        self.assertFalse([pid for pid in self.site.family(node) if is_sleep(pid)])
        self.alone(node)

    def test_nodes_are_given_back_and_donated_while_the_manager_is_away(self):
        self.site.site.manager.kill()
        self.site.site.manager.wait()
        self.alone()
        wait_until(lambda: self.site.agent("n1"), "an agent is there")
        job, end = self.start_job("-n2")
        self.assertEqual(len(self.site.lent("n1")[0]), 2)
        end()
        self.lab.wait_over(job)
        self.alone()
        self.site.site.start_manager()

    def test_slurmd_dies_during_a_job(self):
        job, end = self.start_job("--exclusive")
        self.lab.kill("n1")
        end()
        self.lab.start()
        self.lab.wait_over(job)
        self.site.wait_donated("n1")
        self.alone()

    def test_slurmd_dies_during_a_prolog(self):
        agent = self.site.agent("n1")
        os.kill(agent, signal.SIGSTOP)  # So that the prolog takes a while.
        job = self.lab.submit(ALONE, "-w", "n1", "--exclusive")
        mark = f"{self.site.directory}/run/n1/jobs/{job}"
        wait_until(lambda: os.path.exists(mark), "the prolog has begun")
        self.lab.kill("n1")
        wait_until(lambda: not alive(agent), lambda: f"the prolog has gone on\n{self.site.logs()}")
        self.lab.start()
        self.assertEqual(self.site.family("n1"), [])
        # Slurm waits for minutes for such a prolog, then starts the job anew.
        self.lab.run("scancel", str(job))
        self.lab.wait_over(job)
        self.alone()

    def test_slurmctld_is_restarted(self):
        job, end = self.start_job("-n2")
        self.lab.kill("slurmctld", signal.SIGTERM)
        self.assertEqual(len(self.site.lent("n1")[0]), 2)
        end()
        self.lab.start()
        self.lab.wait_over(job)
        self.alone()

    def test_what_functions_can_write_leads_no_hook_to_other_processes(self):
        with subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL) as bystander:
            self.addCleanup(bystander.kill)
            agent = self.site.agent("n1")
            pathlib.Path(self.site.directory, "agents/n1/lock").write_text(f"{bystander.pid}\n", encoding="ascii")
            self.alone()
            self.assertFalse(alive(agent))
            self.assertIsNone(bystander.poll())
            bystander.kill()

    def test_a_jobs_name_says_nothing_of_its_cores(self):
        job, end = self.start_job("-n1", "-c2", "-J", "x Nodes=n1 CPU_IDs=0-99999999999 Mem=1")
        listed = self.lab.run("scontrol", "show", "job", "-d", "-o", str(job))
        cores = cores_of(listed.rpartition(" CPU_IDs=")[2].split()[0])
        self.assertEqual(len(cores), 2)
        self.assertFalse(cores & self.site.lent("n1")[0])
        end()
        self.assertEqual(self.lab.wait_over(job), "COMPLETED")

    def test_what_a_node_donates_is_taken_back_when_the_hooks_go(self):
        agent = self.site.agent("n1")
        subprocess.run([SCRIPTS / "install", "--uninstall", "--dir", f"{self.site.directory}/hooks"], check=True,
                       env={**os.environ, "SLURMD_NODENAME": "n1"})
        self.assertFalse(alive(agent))

    def test_marks_of_jobs_that_nobody_remembers_expire(self):
        mark = pathlib.Path(self.site.directory, "run/n1/jobs/99999")
        mark.write_text("all\n", encoding="ascii")
        self.alone()
        os.utime(mark, (0, 0))
        self.site.wait_donated("n1")
        self.assertFalse(mark.exists())

    def test_hooks_may_be_installed_while_jobs_run_and_a_missing_one_starts_no_job_beside_an_agent(self):
        jobs = [self.lab.submit(ALONE, "-w", "n1", "--exclusive") for _ in range(4)]
        while self.lab.jobs():
            self.site.install_hooks()
        self.assertEqual({self.lab.wait_over(job) for job in jobs}, {"COMPLETED"})
        self.site.wait_donated("n1")
        os.rename(f"{self.site.directory}/hooks/prolog", f"{self.site.directory}/hooks/away")
        job = self.lab.submit(ALONE, "-w", "n1", "--exclusive")
        wait_until(lambda: "n1" in self.site.drained(), lambda: f"the node is drained\n{self.site.logs()}")
        self.site.install_hooks()
        self.lab.run("scontrol", "update", "nodename=n1", "state=resume")
        self.lab.run("scancel", str(job))
        self.alone()

    def test_a_sites_own_hooks_are_kept(self):
        where = pathlib.Path(self.site.directory, "own")
        where.mkdir()
        for hook in ("prolog", "epilog"):
            (where / hook).write_text(f"#!/bin/sh\necho {hook} >>{where}/said\nexit 3\n", encoding="ascii")
            (where / hook).chmod(0o755)
        words = ["--dir", str(where / "hooks"), "--prolog", str(where / "prolog"), "--epilog", str(where / "epilog")]
        for value in ("RUN_DIR", "STATE_DIR", "LOG_DIR"):
            words += ["--set", f"{value}={where}/{value}"]
        self.lab.run(str(SCRIPTS / "install"), *words)
        self.lab.run(str(SCRIPTS / "install"), *words)  # Its own are not taken for the site's.
        for hook in ("prolog", "epilog"):
            self.lab.run("sh", "-c", f"{where}/{hook}; [ $? = 3 ]")
        self.assertEqual((where / "said").read_text(encoding="ascii"), "prolog\nepilog\n")
        self.lab.run(str(SCRIPTS / "install"), "--uninstall", *words[2:6])
        self.assertIn("exit 3", (where / "prolog").read_text(encoding="ascii"))


def is_sleep(pid):
    try:
        return b"8642" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    unittest.main(verbosity=2)
