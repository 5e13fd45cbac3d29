"""Which transports a site offers, and what it says where one is missing. The same on machines with RDMA devices and
without: what differs is which of the two cases a test looks at."""

import os
import unittest

from sublet_site import BIN, ECHO, PATIENCE_S, Site, wait_until

HAS_RDMA = os.path.isdir("/sys/class/infiniband") and bool(os.listdir("/sys/class/infiniband"))


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


if __name__ == "__main__":
    unittest.main(verbosity=2)
