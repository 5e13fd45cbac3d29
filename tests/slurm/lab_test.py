"""The lab itself: what the tests of this folder rely on."""

import os
import signal
import unittest

from lab import Lab, alive, processes, wait_until


class LabTest(unittest.TestCase):
    def test_jobs_run_through_crashes_beside_another_lab(self):
        with Lab(nodes=2, gpus=1) as lab, Lab(nodes=1) as other:
            self.assertEqual(sorted(lab.run("srun", "-N2", "printenv", "SLURMD_NODENAME").split()), ["n1", "n2"])
            self.assertEqual(lab.run("srun", "-w", "n2", "--gres=gpu:1", "printenv", "CUDA_VISIBLE_DEVICES"), "0\n")

            flag = f"{lab.directory}/flag"
            job = lab.submit(f"touch {flag}.runs; while [ ! -e {flag} ]; do sleep 0.05; done", "-w", "n1", "--exclusive")
            wait_until(lambda: os.path.exists(f"{flag}.runs"), "the job runs")
            self.assertEqual(lab.job(job)["CPU_IDs"], "0-3")
            for daemon in ("n1", "slurmctld"):
                lab.kill(daemon, signal.SIGTERM if daemon == "slurmctld" else signal.SIGKILL)
                lab.start()
            self.assertEqual(lab.jobs()[job], "RUNNING")
            with open(flag, "w", encoding="ascii"):
                pass
            self.assertEqual(lab.wait_over(job), "COMPLETED")

            self.assertEqual(other.run("srun", "printenv", "SLURMD_NODENAME"), "n1\n")
            self.assertFalse(set(lab.ports.numbers) & set(other.ports.numbers))

    def test_nothing_is_left_of_it(self):
        lab = Lab(nodes=1)
        daemons = [daemon.pid for daemon in lab.daemons.values()]
        job = lab.submit("setsid sleep 600 & sleep 600")
        wait_until(lambda: lab.jobs()[job] == "RUNNING", "the job runs")
        lab.close()
        self.assertFalse([pid for pid in daemons if alive(pid)])
        self.assertFalse(processes(lab.directory))


if __name__ == "__main__":
    unittest.main(verbosity=2)
