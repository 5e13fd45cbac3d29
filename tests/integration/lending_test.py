"""Agents that a batch system tells what to lend: cores and memory are given back before the answer, and stay so."""

import os
import signal
import subprocess
import threading
import unittest

from sublet_site import BIN, ECHO, LEAVE_BEHIND, PATIENCE_S, SPIN, Site, cpus_allowed, number, processes, wait_until

CORES = sorted(os.sched_getaffinity(0))
# Four to lend on any machine: by order in the list, as a batch system counts.
FOUR = [CORES[place % len(CORES)] for place in range(4)]


class LendingTest(unittest.TestCase):
    def setUp(self):
        self.site = Site()
        self.addCleanup(self.site.close)
        self.state_dir = os.path.join(self.site.directory, "agent")
        self.site.deploy_probe()

    def start_agent(self, *options, drain_ms=300):
        listed = ",".join(str(core) for core in FOUR)
        return self.site.start_agent("n1", "--core-list", listed, "--cores", "4", "--memory", "4000", "--warm", "4",
                                     "--state-dir", self.state_dir, "--drain-ms", str(drain_ms), *options, ready=1)

    def order(self, *words, wait_ms=PATIENCE_S * 1000):
        return subprocess.run([os.path.join(BIN, "sublet-agent"), *words, "--state-dir", self.state_dir, "--wait-ms", str(wait_ms)],
                              capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False)

    def lend(self, cores, memory, **options):
        return self.order("lend", "--cores", cores, "--memory", str(memory), **options).returncode

    def lent(self):
        return dict(word.split("=") for word in self.order("lent").stdout.split())

    def test_a_lease_on_cores_that_are_taken_goes_and_the_other_stays(self):
        self.start_agent()
        first = self.site.call_in_background(SPIN, number(3_000), "--cores", "2")
        one = self.site.wait_running(1)[0]
        second = self.site.call_in_background(SPIN, number(60_000), "--cores", "2")
        self.site.wait_running(2)
        self.assertEqual(self.lent(), {"cores": "0-3", "held": "0-3", "memory_mib": "4000"})
        two = [pid for pid in self.site.running() if pid != one][0]

        self.assertEqual(self.lend("0-1", 2000), 0)
        self.assertNotIn(two, self.site.workers())
        self.assertEqual(self.lent(), {"cores": "0-1", "held": "0-1", "memory_mib": "2000"})
        node = wait_until(lambda: self.site.node()["cores"] == 2 and self.site.node(), "the manager knows")
        self.assertEqual(node["memory_bytes"], 2000 << 20)
        self.assertEqual(first.wait(PATIENCE_S), 0)
        self.assertNotEqual(second.wait(PATIENCE_S), 0)

        self.assertEqual(self.lend("0-3", 4000), 0)
        wait_until(lambda: self.site.node()["cores"] == 4, "the manager knows of more")
        self.assertEqual(self.site.call(ECHO, b"back", "--cores", "4", check=True).stdout, b"back")

    def test_memory_alone_is_given_back(self):
        self.start_agent()
        call = self.site.call_in_background(SPIN, number(60_000), "--memory", "3000M")
        self.site.wait_running(1)
        self.assertEqual(self.lend("0-3", 2000), 0)
        self.assertFalse(self.site.running())
        self.assertNotEqual(call.wait(PATIENCE_S), 0)
        self.assertEqual(self.lent()["held"], "")

    def test_calls_in_flight_have_the_grace(self):
        self.start_agent(drain_ms=30_000)
        call = self.site.call_in_background(SPIN, number(700))
        self.site.wait_running(1)
        self.assertEqual(self.lend("1-3", 3000, wait_ms=1), 4)
        self.assertEqual(self.lend("1-3", 3000), 0)
        self.assertEqual(call.wait(PATIENCE_S), 0)

    def test_idle_processes_stay_on_what_is_lent(self):
        agent = self.start_agent("--lend-cores", "1")
        self.assertEqual(self.site.node()["cores"], 1)

        def allowed():
            mine = [agent.pid, *self.site.template(), *self.site.workers()]
            return {tuple(sorted(cpus_allowed(pid))) for pid in mine if os.path.exists(f"/proc/{pid}/status")}
        self.assertEqual(allowed(), {(FOUR[1],)})
        self.assertEqual(self.lend("0,2", 2000), 0)
        self.assertEqual(allowed(), {tuple(sorted({FOUR[0], FOUR[2]}))})
        wait_until(lambda: self.site.node()["workers_ready"] == 2, "no more idle workers than cores")

    def test_no_library_that_loads_leaves_what_is_lent(self):
        """Some that libfabric pulls in try the machine's first core while they load."""
        seen = set()
        over = threading.Event()

        def watch():
            while not over.is_set():
                for pid in self.site.template():
                    seen.update(cpus_allowed(pid) if os.path.exists(f"/proc/{pid}/status") else ())
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            self.start_agent("--lend-cores", "1")
        finally:
            over.set()
            watcher.join()
        self.assertEqual(seen, {FOUR[1]})

    def test_orders_that_make_no_sense_change_nothing(self):
        agent = self.start_agent()
        for cores, memory, status in (("0-4", 1000, 1), ("0", 4001, 1), ("0", 0, 1), ("", 1, 2), ("x", 1, 2), ("1-0", 1, 2), ("9999", 1, 2)):
            with self.subTest(cores=cores, memory=memory):
                self.assertEqual(self.lend(cores, memory), status)
        self.assertEqual(self.lent()["cores"], "0-3")
        self.assertEqual(self.order("lend").returncode, 2)
        self.assertEqual(self.order("lent", "--nonsense").returncode, 2)
        agent.send_signal(signal.SIGTERM)
        self.assertEqual(agent.wait(PATIENCE_S), 0)
        self.assertEqual(self.order("lent").returncode, 3)

    def test_an_agent_that_leaves_takes_what_functions_left_along(self):
        agent = self.start_agent()
        self.site.call(LEAVE_BEHIND, b"6543", check=True)
        stray = wait_until(lambda: [pid for pid in processes(self.site.marker) if is_sleep(pid)], "a function left a process")
        agent.send_signal(signal.SIGTERM)
        self.assertEqual(agent.wait(PATIENCE_S), 0)
        self.assertFalse(set(stray) & set(processes(self.site.marker)))
        self.assertEqual([name for name in os.listdir(self.state_dir) if name.endswith(".sock")], [])

    def test_an_agent_whose_manager_is_away_leaves_without_it(self):
        agent = self.start_agent("--goodbye-ms", "0")
        self.site.manager.kill()
        self.site.manager.wait()
        agent.send_signal(signal.SIGTERM)
        self.assertEqual(agent.wait(PATIENCE_S), 0)


def is_sleep(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"6543" in file.read()
    except OSError:
        return False


if __name__ == "__main__":
    unittest.main(verbosity=2)
