"""The agent with real processes: what it lends, what it enforces, and what is left when things are killed."""

import contextlib
import os
import signal
import subprocess
import time
import unittest

from sublet_site import CRASH, ECHO, FAIL, HOG, SPIN, BIN, PATIENCE_S, Site, cpus_allowed, number, wait_until


class AgentTest(unittest.TestCase):
    def setUp(self):
        self.site = Site()
        self.addCleanup(self.site.close)

    def private_directories(self):
        return [name for name in os.listdir(self.site.directory) if name.startswith("sublet-agent-")]

    def test_a_call_goes_through_both_transports(self):
        self.site.start_agent()
        self.site.deploy_probe()
        for transport in ("tcp", "shm"):
            done = self.site.call(ECHO, b"over " + transport.encode(), "--transport", transport, check=True)
            self.assertEqual(done.stdout, b"over " + transport.encode())

    def test_failures_are_typed_and_the_node_goes_on(self):
        self.site.start_agent()
        self.site.deploy_probe()
        failed = self.site.call(FAIL)
        self.assertEqual(failed.returncode, 6)
        self.assertIn(b"failed as asked", failed.stderr)
        crashed = self.site.call(CRASH)
        self.assertEqual(crashed.returncode, 6)
        self.assertIn(b"signal 11", crashed.stderr)
        late = self.site.call(SPIN, number(60_000), "--deadline", "100")
        self.assertEqual(late.returncode, 6)
        self.assertIn(b"deadline", late.stderr)
        self.assertEqual(self.site.call(ECHO, b"fine", check=True).stdout, b"fine")

    def test_a_library_that_is_no_function_is_told_at_the_lease(self):
        self.site.start_agent()
        bad = os.path.join(BIN, "sublet")
        self.site.sublet("deploy", "bad@1", bad, check=True)
        done = self.site.sublet("invoke", "bad@1")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"librar", done.stderr)

    def test_a_function_that_warms_slowly_is_kept_warm_until_a_lease_gets_it(self):
        self.site.start_agent("n1", "--cores", "1")
        self.site.deploy("slow_start")
        self.assertEqual(self.site.sublet("invoke", "slow_start@1", check=True).stdout, b"loaded")

    def test_memory_of_a_lease_is_enforced(self):
        self.site.start_agent("n1", "--cores", "1", "--memory", "64")
        self.site.deploy_probe()
        self.assertEqual(self.site.call(HOG, number(16), check=True).returncode, 0)
        beyond = self.site.call(HOG, number(256))
        self.assertEqual(beyond.returncode, 6)
        self.assertIn(b"function_failed", beyond.stderr)

    def test_workers_of_leases_have_distinct_cores(self):
        cores = len(os.sched_getaffinity(0))
        if cores < 2:
            self.skipTest("needs two cores; this machine lends one")
        self.site.start_agent("n1", "--cores", "2", ready=2)
        self.site.deploy_probe()
        calls = [self.site.call_in_background(SPIN, number(3_000)) for _ in range(2)]
        self.site.wait_running(2)
        bound = [cpus_allowed(pid) for pid in self.site.workers()]
        single = [cpus for cpus in bound if len(cpus) == 1]
        self.assertEqual(len(single), 2, bound)
        self.assertNotEqual(single[0], single[1])
        for call in calls:
            self.assertEqual(call.wait(PATIENCE_S), 0)

    def test_a_dead_worker_is_replaced_and_told(self):
        self.site.start_agent("n1", "--cores", "1")
        before = set(self.site.workers())
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: set(self.site.workers()) - before and self.site.node()["workers_ready"] == 1,
                   "another worker is ready")

    def test_a_worker_killed_or_stopped_in_a_call_is_a_typed_error(self):
        self.site.start_agent("n1", "--cores", "1")
        self.site.deploy_probe()
        for blow in (signal.SIGKILL, signal.SIGSTOP):
            for transport in ("shm", "tcp"):
                with self.subTest(blow=blow.name, transport=transport):
                    self.site.wait_ready()
                    call = self.site.call_in_background(SPIN, number(25_000), "--transport", transport)
                    serving = self.site.wait_running()
                    os.kill(serving[0], blow)
                    self.assertEqual(call.wait(20), 6)
                    self.assertIn("worker_lost", self.site.logs())
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(serving[0], signal.SIGKILL)  # A stopped one; the killed one has gone.

    def test_a_killed_agent_leaves_no_worker_and_no_directory_for_long(self):
        for busy in (False, True):
            with self.subTest(busy=busy):
                agent = self.site.start_agent("n1", "--cores", "1")
                if busy:
                    self.site.deploy_probe()
                    call = self.site.call_in_background(SPIN, number(60_000))
                    self.site.wait_running()
                agent.kill()
                agent.wait()
                wait_until(lambda: not self.site.workers() and not self.site.template(), "no worker is left")
                if busy:
                    self.assertEqual(call.wait(PATIENCE_S), 6)
        self.assertEqual(len(self.private_directories()), 1)
        self.site.start_agent("n2")
        self.assertEqual(len(self.private_directories()), 1, "the next agent removes what the killed ones left")

    def test_sigterm_drains_in_order(self):
        agent = self.site.start_agent("n1", "--cores", "1", "--drain-ms", "20000")
        self.site.deploy_probe()
        call = self.site.call_in_background(SPIN, number(1_500))
        self.site.wait_running()
        agent.send_signal(signal.SIGTERM)
        self.assertEqual(call.wait(PATIENCE_S), 0, self.site.logs())
        self.assertEqual(agent.wait(PATIENCE_S), 0)
        self.assertIsNone(self.site.node())
        self.assertEqual(self.private_directories(), [])
        self.assertEqual(self.site.workers() + self.site.template(), [])

    def test_sigterm_has_a_hard_end_without_the_manager(self):
        agent = self.site.start_agent("n1", "--cores", "1", "--drain-ms", "300")
        self.site.deploy_probe()
        call = self.site.call_in_background(SPIN, number(60_000))
        self.site.wait_running()
        self.site.manager.send_signal(signal.SIGSTOP)
        agent.send_signal(signal.SIGTERM)
        agent.send_signal(signal.SIGTERM)  # Repeated: harmless.
        self.assertEqual(agent.wait(15), 0)
        self.assertEqual(self.site.workers(), [])
        self.site.manager.send_signal(signal.SIGCONT)
        self.assertEqual(call.wait(PATIENCE_S), 6)

    def test_a_lost_template_is_started_again_and_leases_go_on(self):
        self.site.start_agent("n1", "--cores", "1", ready=1)
        self.site.deploy_probe()
        call = self.site.call_in_background(SPIN, number(2_500))
        self.site.wait_running()
        # A worker has the template's name for the first moment of its life.
        old = wait_until(lambda: len(self.site.template()) == 1 and self.site.template(), "one template")
        os.kill(old[0], signal.SIGKILL)
        self.assertEqual(call.wait(PATIENCE_S), 0)
        wait_until(lambda: self.site.template() and self.site.template() != old, "another template")
        self.assertEqual(self.site.call(ECHO, b"again", check=True).stdout, b"again")

    def test_a_restarted_manager_gets_its_nodes_back(self):
        self.site.start_agent("n1", "--cores", "1")
        self.site.manager.kill()
        self.site.manager.wait()
        self.site.start_manager()
        self.site.wait_ready()
        self.site.deploy_probe()
        self.assertEqual(self.site.call(ECHO, b"back", check=True).stdout, b"back")

    def test_release_by_the_manager_ends_a_client_that_is_silent(self):
        self.site.start_agent("n1", "--cores", "1")
        self.site.deploy_probe()
        call = self.site.call_in_background(SPIN, number(60_000))
        self.site.wait_running()
        lease = [lease for lease in self.site.get("/v1/leases")["leases"] if lease["state"] == "active"][0]["lease"]
        status, _ = self.site.post(f"/v1/leases/{lease}/revoke", {})
        self.assertLess(status, 300)
        self.assertEqual(call.wait(PATIENCE_S), 6)
        self.site.wait_ready()

    def test_a_killed_client_frees_its_worker(self):
        self.site.start_agent("n1", "--cores", "1")
        self.site.deploy_probe()
        for transport in ("shm", "tcp"):
            with self.subTest(transport=transport):
                self.site.wait_ready()
                call = self.site.call_in_background(SPIN, number(60_000), "--transport", transport)
                serving = self.site.wait_running()
                call.kill()
                call.wait()
                wait_until(lambda: serving[0] not in self.site.workers(), "the worker of a dead client ends")
                wait_until(lambda: self.site.node()["workers_serving"] == 0, "the manager knows")

    def test_many_short_leases_leave_nothing(self):
        agent = self.site.start_agent("n1", "--cores", "1")
        self.site.deploy_probe()
        self.site.call(ECHO, b"warm", check=True)
        descriptors = len(os.listdir(f"/proc/{agent.pid}/fd"))
        for round_number in range(20):
            text = f"lease {round_number}".encode()
            self.assertEqual(self.site.call(ECHO, text, check=True).stdout, text)
        wait_until(lambda: len(os.listdir(f"/proc/{agent.pid}/fd")) <= descriptors + 4, "descriptors are given back")
        # Ready ones, one successor with the function, and at most one that is just leaving.
        wait_until(lambda: len(self.site.workers()) <= 3, "workers are gone with their leases")


class UsageTest(unittest.TestCase):
    def run_agent(self, *options):
        env = {key: value for key, value in os.environ.items() if key != "SUBLET_MANAGER"}
        return subprocess.run([os.path.join(BIN, "sublet-agent"), *options], capture_output=True, text=True, env=env,
                              timeout=PATIENCE_S, check=False)

    def test_wrong_usage_says_what_to_do(self):
        manager = ("--manager", "http://127.0.0.1:1")
        for options, word in (
            ((), "--manager"),
            (("--nonsense",), "nonsense"),
            ((*manager, "extra"), "extra"),
            ((*manager, "--cores", "0"), "--cores"),
            ((*manager, "--cores", "4000"), "--oversubscribe"),
            ((*manager, "--cores", "many"), "many"),
            ((*manager, "--address", "0.0.0.0"), "--allow-public"),
            ((*manager, "--region", "0"), "--region"),
            ((*manager, "--state-dir", "/proc/nothing"), "may write in"),
            ((*manager, "--state-dir", "/proc"), "may write in"),
            ((*manager, "--state-dir", "/dev/null"), "may write in"),
            ((*manager, "--address", "localhost"), "numeric"),
            ((*manager, "--verbs-address", "localhost"), "--verbs-address takes a numeric"),
            ((*manager, "--verbs-address", "10.0.0.1"), "--allow-public"),
            ((*manager, "--transports", "tcp,pigeon"), "'pigeon'"),
            ((*manager, "--transports", "tcp", "--verbs-address", "::1"), "does not name verbs"),
            ((*manager, "--log-level", "loud"), "'loud'"),
            ((*manager, "--memory", "0"), "--memory"),
            ((*manager, "--memory", "99999999999999999"), "--memory"),
            ((*manager, "--warm", "100000"), "--warm must be 0 to"),
            ((*manager, "--drain-ms", "18446744073709551615"), "--drain-ms"),
            (("--manager", "localhost"), "http://"),
            (("--manager", ""), "http://"),
            (("--manager", "http://127.0.0.1:1/v1"), "without a path"),
        ):
            with self.subTest(options=options):
                done = self.run_agent(*options)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(word, done.stderr)
                self.assertNotIn("terminate", done.stderr)

    def test_help_and_version(self):
        self.assertIn("--drain-ms", self.run_agent("--help").stdout)
        self.assertIn("sublet-agent", self.run_agent("--version").stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
