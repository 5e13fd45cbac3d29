"""Which transports a site offers, and what it says where one is missing. The same on machines with RDMA devices and
without: what differs is which of the two cases a test looks at."""

import json
import os
import unittest
import urllib.request

from sublet_site import ECHO, PATIENCE_S, SPIN, Site, number, wait_until

HAS_RDMA = os.path.isdir("/sys/class/infiniband") and bool(os.listdir("/sys/class/infiniband"))
# An address of this machine that leads to its RDMA device.
RDMA_ADDRESS = os.environ.get("SUBLET_TEST_RDMA_ADDRESS", "")
ADDRESS = ("--address", RDMA_ADDRESS, "--allow-public") if RDMA_ADDRESS else ()


class TransportsTest(unittest.TestCase):
    def setUp(self):
        self.site = Site()
        self.addCleanup(self.site.close)

    def grant(self, **wishes):
        status, answer = self.site.post("/v1/leases", {"function": "probe@1", **wishes})
        self.assertEqual(status, 201, answer)
        return answer

    def endpoints(self):
        return self.grant()["workers"][0]["endpoints"]

    def test_workers_listen_on_what_the_agent_was_told(self):
        self.site.start_agent("n1", "--transports", "tcp", "--address", "::1")
        self.site.deploy_probe()
        endpoints = self.endpoints()
        self.assertEqual(set(endpoints), {"tcp"})
        self.assertRegex(endpoints["tcp"], r"^\[::1\]:\d+$")

    def test_workers_listen_on_providers_of_libfabric(self):
        self.site.start_agent("n1", "--transports", "shm,fabric:tcp:ofi_rxm")
        self.site.deploy_probe()
        self.assertEqual(set(self.endpoints()), {"shm", "fabric:tcp:ofi_rxm"})
        answer = self.site.call(ECHO, b"hello", "--transport", "fabric:tcp:ofi_rxm")
        self.assertEqual((answer.returncode, answer.stdout), (0, b"hello"), answer.stderr)

    def test_without_being_told_workers_listen_on_what_works(self):
        self.site.start_agent("n1", "--warm", "2", ready=2)
        self.site.deploy_probe()
        self.assertLessEqual({"tcp", "shm"}, set(self.endpoints()))
        if not HAS_RDMA:
            self.assertEqual(self.site.logs().count("verbs"), 1, "it is told once")

    def test_what_is_insisted_on_and_does_not_work_ends_the_agent(self):
        cases = [(("--transports", "shm,fabric:nothing"), "fabric:nothing at 127.0.0.1"),
                 (("--transports", "tcp", "--address", "192.0.2.1", "--allow-public"), "tcp at 192.0.2.1")]
        if not HAS_RDMA:
            cases += [(("--transports", "shm,verbs"), "verbs at 127.0.0.1"),
                      (("--verbs-address", "127.0.0.2"), "verbs at 127.0.0.2")]
        for options, what in cases:
            with self.subTest(options=options):
                agent = self.site.start("sublet-agent", *options)
                self.assertEqual(agent.wait(PATIENCE_S), 1)
                self.assertIn("workers cannot listen on " + what, self.site.logs())
                self.assertIn("leave " + what.split()[0] + " out of --transports", self.site.logs())

    def leases(self):
        return self.site.get("/v1/leases?state=active")["leases"]

    def metric(self, name):
        with urllib.request.urlopen(self.site.url + "/metrics", timeout=PATIENCE_S) as answer:
            lines = answer.read().decode().splitlines()
        return {line.split('"')[1]: int(line.split()[-1]) for line in lines if line.startswith(name + "{")}

    def json_call(self, *options):
        return json.loads(self.site.call(ECHO, b"x", "--json", *options, check=True).stdout)

    def mixed_pool(self, fast, slow):
        """Two nodes, one of which offers `fast` besides `slow`."""
        self.site.start_agent("both", "--transports", f"{fast},{slow}", "--cores", "2", "--oversubscribe", *ADDRESS, ready=2)
        self.site.start_agent("slow", "--transports", slow, "--cores", "4", "--oversubscribe", *ADDRESS, ready=4)
        self.site.deploy_probe()

    def wait_rested(self):
        for name, workers in (("both", 2), ("slow", 4)):
            wait_until(lambda: self.site.node(name)["workers_ready"] >= workers and self.site.node(name)["cores_leased"] == 0,
                       f"{name} holds nothing")

    def check_mixed_pool(self, fast, slow):
        self.mixed_pool(fast, slow)
        done = self.json_call("--prefer-transport", fast, "--workers", "4", "--repeat", "40", "--concurrency", "8")
        self.assertEqual(done["failed"], 0)
        ways = sorted((worker["node"], worker["transport"], worker["why"], worker["fell_back"]) for worker in done["workers"])
        refused = ("slow", slow, f"{fast} refused: the worker does not offer it", True)
        self.assertEqual(ways, [("both", fast, "preferred", False)] * 2 + [refused] * 2)
        wait_until(lambda: self.metric("sublet_connections_total") == {fast: 2, slow: 2}, "each connection is counted")
        self.wait_rested()
        told = self.site.call(ECHO, b"x", "--prefer-transport", fast, "--workers", "3", check=True).stderr.decode()
        self.assertIn(f"1 worker is reached over {slow}: {fast} refused: the worker does not offer it", told)
        # What is required or forbidden holds for every worker.
        self.wait_rested()
        done = self.json_call("--forbid-transport", slow, "--workers", "2")
        self.assertEqual([worker["transport"] for worker in done["workers"]], [fast] * 2)
        self.wait_rested()
        refusal = self.site.call(ECHO, b"x", "--transport", fast, "--workers", "3", "--wait", "1")
        self.assertEqual(refusal.returncode, 5)
        self.assertRegex(refusal.stderr.decode(), rf"\d workers offer {fast};")

    def test_one_lease_over_a_mixed_pool(self):
        self.check_mixed_pool("shm", "tcp")

    @unittest.skipUnless(RDMA_ADDRESS, "needs an RDMA device")
    def test_one_lease_over_a_mixed_pool_with_verbs(self):
        self.check_mixed_pool("verbs", "tcp")

    def test_by_what_a_client_came_is_seen_while_it_is_there(self):
        self.mixed_pool("shm", "tcp")
        call = self.site.call_in_background(SPIN, number(4_000), "--prefer-transport", "shm", "--workers", "3")
        lease = wait_until(lambda: [lease for lease in self.leases()
                                    if [worker for worker in lease["workers"] if worker["transport"]] == lease["workers"]],
                           f"the nodes have said it\n{self.site.logs()}")[0]
        self.assertEqual(lease["transports"], {"require": [], "prefer": ["shm"], "forbid": []})
        shown = sorted((worker["transport"], worker["fallback"]) for worker in lease["workers"])
        self.assertEqual(shown, [("shm", "")] * 2 + [("tcp", "shm is preferred, but the worker does not offer it")])
        self.assertEqual(self.metric("sublet_connections"), {"shm": 2, "tcp": 1})
        self.assertIn("2 shm, 1 tcp (1 not as preferred)", self.site.sublet("leases", check=True).stdout.decode())
        # A manager that begins anew still knows the wishes, and hears the rest again.
        self.site.manager.kill()
        self.site.manager.wait()
        self.site.start_manager()
        again = wait_until(lambda: [lease for lease in self.leases() if lease["workers"]
                                    and all(worker["transport"] for worker in lease["workers"])], "it is heard again")[0]
        self.assertEqual(again["transports"], lease["transports"])
        self.assertEqual(call.wait(PATIENCE_S), 0)
        wait_until(lambda: not any(self.metric("sublet_connections").values()), "the client has gone")

    def test_what_no_worker_offers_is_refused_with_what_they_do(self):
        self.site.start_agent("n1", "--transports", "tcp", "--cores", "1")
        self.site.deploy_probe()
        status, answer = self.site.post("/v1/leases", {"function": "probe@1", "wait_ms": 100,
                                                       "transports": {"require": ["verbs"]}})
        self.assertEqual((status, answer["error"]), (503, "no_capacity"))
        self.assertRegex(answer["message"], r"no worker offers verbs; \d+ offer tcp: allow another transport")
        status, answer = self.site.post("/v1/leases", {"function": "probe@1", "transports": {"forbid": ["tcp"]}})
        self.assertIn("no worker offers anything but tcp", answer["message"])
        status, answer = self.site.post("/v1/leases", {"function": "probe@1",
                                                       "transports": {"require": ["tcp"], "forbid": ["tcp"]}})
        self.assertEqual((status, answer["message"]), (400, "transports.forbid names tcp, which require names too"))

    @unittest.skipIf(HAS_RDMA, "this machine has an RDMA device")
    def test_a_client_without_a_device_says_so(self):
        self.site.start_agent("n1", "--cores", "1")
        self.site.deploy_probe()
        done = self.json_call("--prefer-transport", "verbs")
        self.assertTrue(done["workers"][0]["fell_back"])
        self.assertIn("verbs refused", done["workers"][0]["why"])
        refused = self.site.call(ECHO, b"x", "--transport", "verbs")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("requires verbs, and this machine can use only tcp, shm", refused.stderr.decode())

    def test_a_command_line_that_names_no_transport_is_refused(self):
        for options, word in ((("--transport", "tcp,vrebs"), "did you mean 'verbs'"), (("--transport", ""), "one of"),
                              (("--transport", "tcp", "--forbid-transport", "tcp"), "")):
            with self.subTest(options=options):
                done = self.site.call(ECHO, b"x", *options)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(word, done.stderr.decode())


if __name__ == "__main__":
    unittest.main(verbosity=2)
