"""What an agent tells its manager: usage that is exact whatever is killed, heartbeats as light as they can be; and that
it comes back from a manager that is away, stopped or talks nonsense."""

import os
import signal
import time
import unittest

from manager_proxy import ManagerProxy
from sublet_site import ECHO, FAIL, PATIENCE_S, SPIN, Site, number, wait_until

NODE_SILENT_MAX_S = 5  # runtime/base/limits.hpp
CALL_FAILED = 6  # The exit code of sublet invoke.
CUT_CALL_S = 0.5  # So long a call has run, by its agent's word, before it is cut off.
LIST_NAMES = ("ready", "serving")


class ProxiedTest(unittest.TestCase):
    def setUp(self):
        self.site = Site()
        self.addCleanup(self.site.close)
        self.proxy = ManagerProxy(self.site.url)
        self.addCleanup(self.proxy.close)

    def tearDown(self):
        self.assertEqual(self.proxy.backwards, [], "usage ran backwards")

    def start_agent(self, *options):
        return self.site.start_agent("n1", "--manager", self.proxy.url, "--cores", "1", *options)

    def wait_books(self, started, returned):
        try:
            wait_until(lambda: self.proxy.books() == (started, returned), "the books add up")
        except AssertionError as error:
            raise AssertionError(f"the books say {self.proxy.books()}, not {(started, returned)}\n"
                                 f"{self.site.logs()}") from error

    def start_spinning(self):
        """A call that runs until its worker or client is killed, for a while already; returns the client."""
        before, executed_s = self.proxy.books()[0], self.execution_s()
        call = self.site.call_in_background(SPIN, number(60_000))
        wait_until(lambda: self.proxy.books()[0] == before + 1, "the call has started")
        wait_until(lambda: self.execution_s() > executed_s + CUT_CALL_S, "it is told how long it has run")
        return call

    def execution_s(self):
        with self.proxy.lock:
            return sum(usage["execution_ns"] for usage in self.proxy.totals().values()) / 1e9

    def private_directories(self):
        return [name for name in os.listdir(self.site.directory) if name.startswith("sublet-agent-")]


class UsageTest(ProxiedTest):
    def test_every_call_of_short_leases_and_of_many_in_flight_is_counted_once(self):
        self.start_agent()
        self.site.deploy_probe()
        begin = time.monotonic()
        for _ in range(5):
            self.site.call(ECHO, b"one", check=True)
        self.site.call(ECHO, b"many", "--repeat", "500", "--concurrency", "8", check=True)
        for _ in range(3):
            self.assertEqual(self.site.call(FAIL).returncode, CALL_FAILED)
        self.site.call(SPIN, number(200), check=True)
        self.wait_books(509, 509)
        totals = self.proxy.totals().values()
        self.assertEqual(len(totals), 10, "a worker for each lease")
        self.assertEqual(len({usage["lease"] for usage in totals}), 10)
        execution_s = sum(usage["execution_ns"] for usage in totals) / 1e9
        hot_s = sum(usage["hot_ns"] for usage in totals) / 1e9
        self.assertGreater(execution_s, 0.2)
        self.assertLess(execution_s + hot_s, time.monotonic() - begin)
        self.assertGreater(hot_s, 0)
        # What was answered is not said again.
        count = len(self.proxy.said())
        wait_until(lambda: len(self.proxy.said()) > count + 2, "more heartbeats")
        self.assertEqual([usage for beat in self.proxy.said()[count:] for usage in beat["usage"]], [])

    def test_a_worker_killed_in_a_call_leaves_what_it_had_counted(self):
        self.start_agent()
        self.site.deploy_probe()
        begin = time.monotonic()
        call = self.start_spinning()
        os.kill(self.site.wait_running()[0], signal.SIGKILL)
        self.assertEqual(call.wait(PATIENCE_S), CALL_FAILED)
        self.site.call(ECHO, b"next", check=True)
        self.wait_books(2, 1)
        self.assertLess(self.execution_s(), time.monotonic() - begin)

    def test_a_call_whose_client_is_killed_counts_while_it_ran_and_no_more(self):
        self.start_agent()
        self.site.deploy_probe()
        begin = time.monotonic()
        call = self.start_spinning()
        call.kill()
        call.wait()
        wait_until(lambda: self.site.node()["workers_serving"] == 0, "its worker has ended")
        lived_s = time.monotonic() - begin
        self.site.wait_ready()
        self.site.call(ECHO, b"next", check=True)
        self.wait_books(2, 1)
        self.assertLess(self.execution_s(), lived_s)

    def test_what_a_killed_agent_had_not_said_its_successor_says(self):
        for directory in ((), ("--state-dir", os.path.join(self.site.directory, "state"))):
            with self.subTest(directory=directory):
                started, returned = self.proxy.books()
                executed_s, begin = self.execution_s(), time.monotonic()
                agent = self.start_agent(*directory)
                self.site.deploy_probe()
                call = self.start_spinning()
                self.proxy.fault = 503
                self.assertEqual(self.proxy.books(), (started + 1, returned))
                call.kill()  # Its worker ends, and what it counted cannot be told.
                call.wait()
                wait_until(lambda: any(beat["ended"] for beat in self.proxy.said()), "the agent says so in vain")
                agent.kill()
                agent.wait()
                self.proxy.fault = None
                if not directory:
                    self.assertEqual(len(self.private_directories()), 1)
                agent = self.start_agent(*directory)
                self.site.call(ECHO, b"more", check=True)
                self.wait_books(started + 2, returned + 1)
                self.assertLess(self.execution_s() - executed_s, time.monotonic() - begin)
                agent.send_signal(signal.SIGTERM)
                self.assertEqual(agent.wait(PATIENCE_S), 0)
                self.assertEqual(self.private_directories(), [])

    def test_an_agent_killed_in_a_call_loses_nothing(self):
        state = ("--state-dir", os.path.join(self.site.directory, "state"))
        agent = self.start_agent(*state)
        self.site.deploy_probe()
        self.proxy.fault_path, self.proxy.fault, self.proxy.lose_answers = "/heartbeat", 503, True
        self.site.call(ECHO, b"many", "--repeat", "300", check=True)
        call = self.site.call_in_background(SPIN, number(60_000))
        worker = self.site.wait_running()[0]
        agent.kill()
        agent.wait()
        self.assertEqual(call.wait(PATIENCE_S), CALL_FAILED)
        self.assertNotIn(worker, self.site.workers())
        self.proxy.fault = None
        self.start_agent(*state)
        self.wait_books(301, 300)
        wait_until(lambda: not self.kept(state[1]), "all is answered")

    def test_what_one_manager_has_not_heard_waits_for_it_while_another_one_has_the_node(self):
        state = os.path.join(self.site.directory, "state")
        agent = self.start_agent("--state-dir", state)
        self.site.deploy_probe()
        self.site.wait_ready()
        self.proxy.fault_path, self.proxy.fault = "/heartbeat", 503
        self.site.call(ECHO, b"unheard", check=True)
        wait_until(lambda: any(beat["ended"] for beat in self.proxy.said()), "the agent says so in vain")
        agent.kill()
        agent.wait()
        waiting = self.kept(state)
        self.assertEqual(len(waiting), 1)
        other = Site()
        self.addCleanup(other.close)
        agent = self.site.start("sublet-agent", "--name", "n1", "--cores", "1", "--state-dir", state, "--manager", other.url)
        other.wait_ready()
        other.deploy_probe()
        other.call(ECHO, b"another's", check=True)
        agent.send_signal(signal.SIGTERM)
        self.assertEqual(agent.wait(PATIENCE_S), 0)
        self.assertEqual(self.kept(state), waiting)
        self.assertIn("for another manager is kept in", self.site.logs())
        self.proxy.fault = None
        self.start_agent("--state-dir", state)
        self.wait_books(1, 1)
        wait_until(lambda: not self.kept(state), "it is answered")

    def kept(self, state):
        """The accounts of leases that lie in the agent's state directory, each with its manager's part."""
        usage = os.path.join(state, "usage")
        return [f"{manager}/{name}" for manager in os.listdir(usage) for name in os.listdir(os.path.join(usage, manager))
                if "." in name]

    def test_a_drained_agent_says_all_before_it_leaves(self):
        agent = self.start_agent("--drain-ms", "20000")
        self.site.deploy_probe()
        call = self.site.call_in_background(SPIN, number(1_000), "--repeat", "3")
        wait_until(lambda: self.proxy.books()[0] >= 1, "the first call has started")
        agent.send_signal(signal.SIGTERM)
        self.assertEqual(agent.wait(PATIENCE_S), 0)
        call.kill()  # It waits for another node.
        started, returned = self.proxy.books()
        self.assertEqual(started, returned)
        self.assertGreaterEqual(started, 1)
        self.assertEqual(self.private_directories(), [])

    def test_an_agent_that_leaves_without_its_manager_keeps_what_it_owes(self):
        agent = self.start_agent()
        self.site.deploy_probe()
        self.site.call(ECHO, b"heard", check=True)
        self.wait_books(1, 1)
        self.site.wait_ready()
        self.proxy.fault = "closed"
        self.site.call(ECHO, b"unheard", check=True)
        self.wait_books(2, 2)  # Said in vain.
        agent.send_signal(signal.SIGTERM)
        self.assertEqual(agent.wait(PATIENCE_S), 0)
        self.assertEqual(len(self.private_directories()), 1)
        self.proxy.heartbeats.clear()
        self.proxy.fault = None
        self.start_agent()
        self.wait_books(1, 1)
        self.assertEqual(len(self.private_directories()), 1)


class HeartbeatTest(ProxiedTest):
    def next_beats(self, count=1):
        """The heartbeats that begin from now on."""
        before = len(self.proxy.said())
        wait_until(lambda: len(self.proxy.said()) >= before + count, "heartbeats come")
        return self.proxy.said()[before:before + count]

    def test_lists_are_said_again_only_when_they_changed_or_are_asked_for(self):
        self.start_agent("--warm", "1")
        wait_until(lambda: self.proxy.said()[-1]["unchanged"], "nothing changes")
        for beat in self.next_beats(2):
            self.assertTrue(beat["unchanged"])
            self.assertEqual([beat[name] for name in LIST_NAMES], [[], []])
        self.proxy.resend = True
        wait_until(lambda: not self.proxy.said()[-1]["unchanged"] and self.proxy.said()[-1]["ready"], "all is said")
        beats = self.next_beats(3)
        self.assertFalse(any(beat["unchanged"] for beat in beats), "as long as the manager asks for it")
        self.proxy.resend = False
        wait_until(lambda: self.proxy.said()[-1]["unchanged"], "no more")
        count = len(self.proxy.said())
        self.site.deploy_probe()
        self.site.call(ECHO, b"a lease", check=True)
        wait_until(lambda: any(beat["serving"] for beat in self.proxy.said()[count:]), "the lease is said")

    def test_a_manager_that_is_never_content_is_not_flooded(self):
        self.proxy.resend = True
        self.start_agent()
        begin = time.monotonic()
        self.next_beats(4)
        self.assertGreater(time.monotonic() - begin, 2)

    def test_after_a_failure_all_is_said(self):
        self.start_agent("--warm", "1")
        wait_until(lambda: self.proxy.said()[-1]["unchanged"], "nothing changes")
        self.proxy.fault_path, self.proxy.fault = "/heartbeat", 503
        self.next_beats(2)
        self.proxy.fault = None
        before = len(self.proxy.said())
        wait_until(lambda: len(self.proxy.said()) > before + 1, "heartbeats come")
        first = self.proxy.said()[before]
        self.assertFalse(first["unchanged"])
        self.assertEqual(len(first["ready"]), 1)


class ComingBackTest(ProxiedTest):
    def test_calls_go_on_whatever_the_manager_answers(self):
        agent = self.start_agent()
        self.site.deploy_probe()
        call = self.site.call_in_background(SPIN, number(100), "--repeat", "160")
        worker = self.site.wait_running()[0]
        self.proxy.lose_answers = True  # One that hears nothing takes the node for lost, and may.
        for fault in (500, "garbage", "other", "half", "closed"):
            before = len(self.proxy.said())
            self.proxy.fault = fault
            wait_until(lambda: len(self.proxy.said()) > before + 1, f"the agent tries again after {fault}")
        self.assertIsNone(call.poll())
        self.assertIn(worker, self.site.workers())
        self.proxy.fault = None
        self.assertEqual(call.wait(PATIENCE_S), 0, self.site.logs())
        self.assertIsNone(agent.poll())
        self.wait_books(160, 160)
        self.site.wait_ready()
        self.assertEqual(self.site.call(ECHO, b"back", check=True).stdout, b"back")

    def test_a_node_that_the_manager_forgets_registers_again(self):
        self.start_agent()
        self.site.deploy_probe()
        node = self.site.node()["node"]
        self.proxy.fault_path, self.proxy.fault = "/heartbeat", 404
        wait_until(lambda: self.proxy.requests.count(("POST", "/v1/nodes")) > 1, "it registers again")
        self.proxy.fault = None
        wait_until(lambda: self.site.node() and self.site.node()["node"] != node, "the node has another number")
        self.site.wait_ready()
        self.assertEqual(self.site.call(ECHO, b"back", check=True).stdout, b"back")

    def test_leases_in_use_outlive_a_manager_that_is_stopped(self):
        self.start_agent()
        self.site.deploy_probe()
        call = self.site.call_in_background(SPIN, number(100), "--repeat", "70")
        worker = self.site.wait_running()[0]
        self.site.manager.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        wait_until(lambda: time.monotonic() > stopped + NODE_SILENT_MAX_S + 0.5, "a node would count as lost")
        self.assertIsNone(call.poll())
        self.site.manager.send_signal(signal.SIGCONT)
        self.assertEqual(call.wait(PATIENCE_S), 0, self.site.logs())
        self.wait_books(70, 70)
        self.assertEqual(len(self.proxy.totals()), 1, "one worker served it all")
        wait_until(lambda: worker not in self.site.workers(), "it ends with its lease")
        self.site.wait_ready()

    def test_leases_in_use_outlive_a_manager_that_is_killed(self):
        self.start_agent()
        self.site.deploy_probe()
        self.site.wait_ready()
        node = self.site.node()["node"]
        call = self.site.call_in_background(SPIN, number(100), "--repeat", "80")
        worker = self.site.wait_running()[0]
        self.site.manager.kill()
        self.site.manager.wait()
        killed = time.monotonic()
        wait_until(lambda: time.monotonic() > killed + 3, "the manager was away for a while")
        self.assertIsNone(call.poll())
        self.site.start_manager()
        wait_until(lambda: (self.site.node() or {}).get("workers_serving") == 1, "its lease is known again")
        self.assertEqual(self.site.node()["node"], node)
        self.assertIn(worker, self.site.workers())
        self.assertEqual(call.wait(PATIENCE_S), 0, self.site.logs())
        self.wait_books(80, 80)
        self.assertEqual(len(self.proxy.totals()), 1, "one worker served it all")
        rows = wait_until(lambda: [row for row in self.site.get("/v1/usage?by=worker")["rows"] if row["calls"] == 80],
                          "the manager's books say the same")
        self.assertEqual(rows[0]["worker"], next(iter(self.proxy.totals())))
        self.site.wait_ready()
        self.assertEqual(self.site.call(ECHO, b"next", check=True).stdout, b"next")

    def test_a_function_that_cannot_be_fetched_is_tried_again(self):
        state = os.path.join(self.site.directory, "state")
        self.start_agent("--state-dir", state)
        self.proxy.fault_path, self.proxy.fault = "/v1/functions/by-id/", 503
        self.site.deploy_probe()
        wait_until(lambda: len([path for _, path in self.proxy.requests if "/by-id/" in path]) >= 3, "it is retried")
        self.proxy.fault = None
        wait_until(lambda: [name for name in os.listdir(state) if name.endswith(".so")], "the function comes")


if __name__ == "__main__":
    unittest.main(verbosity=2)
