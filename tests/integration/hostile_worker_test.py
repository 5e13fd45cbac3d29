"""An agent among workers that say what they like: they run tenants' code. Nothing of it spoils what the agent tells its
manager, and nobody gets a share of the node for it."""

import json
import os
import shutil
import unittest

from manager_proxy import ManagerProxy
from sublet_site import BIN, Site, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
ATTACHED = 5  # executor/local/messages.hpp


class HostileWorkerTest(unittest.TestCase):
    def setUp(self):
        self.site = Site()
        self.addCleanup(self.site.close)
        self.proxy = ManagerProxy(self.site.url)
        self.addCleanup(self.proxy.close)
        # The agent starts what lies beside it.
        self.programs = os.path.join(self.site.directory, "programs")
        os.mkdir(self.programs)
        shutil.copy(os.path.join(BIN, "sublet-agent"), self.programs)
        shutil.copy(os.path.join(HERE, "hostile_worker.py"), os.path.join(self.programs, "sublet-worker"))
        os.chmod(os.path.join(self.programs, "sublet-worker"), 0o700)

    def answers(self):
        try:
            with open(os.path.join(self.programs, "answers"), encoding="ascii") as file:
                return [json.loads(line) for line in file]
        except OSError:
            return []

    def test_what_hostile_workers_say_spoils_nothing(self):
        self.site.start(os.path.join(self.programs, "sublet-agent"), "--name", "n1", "--manager", self.proxy.url,
                        "--cores", "1", "--warm", "4")
        wait_until(lambda: len(self.answers()) == 3, f"all is answered\n{self.site.logs()}")
        for worker, what, kind, refused, text in self.answers():
            with self.subTest(what=what):
                self.assertEqual((worker, kind), (4, ATTACHED))
                self.assertNotEqual(refused, 0)
                self.assertIn("not for this worker", text)
        # One more has taken the place of the first, which nobody could have reached.
        ready = wait_until(lambda: self.published({2, 3, 4, 5}), f"the others are published\n{self.site.logs()}")
        self.assertEqual(ready[2], {"tcp": "127.0.0.1:4711"}, "its other addresses are none")
        self.assertEqual(ready[3], {"tcp": "x" * 108})
        self.assertEqual(ready[4], {"tcp": "127.0.0.1:4711"}, "it was ready once")
        node = wait_until(lambda: (self.site.node() or {}).get("workers_ready") == 4 and self.site.node(), "the manager knows")
        self.assertEqual((node["state"], node["cores_leased"]), ("up", 0))
        self.assertEqual([worker for beat in self.proxy.said() for worker in beat["ready"] if worker["id"] == 1], [])
        self.assertEqual([lease for beat in self.proxy.said() for lease in beat["serving"]], [])
        self.assertEqual(self.proxy.requests.count(("POST", "/v1/nodes")), 1, "no heartbeat was refused")

    def published(self, workers):
        """The addresses of the workers that the agent has said last, when they are these."""
        beats = [beat for beat in self.proxy.said() if not beat["unchanged"]]
        ready = {worker["id"]: worker["endpoints"] for worker in beats[-1]["ready"]} if beats else {}
        return ready if set(ready) == workers else None


if __name__ == "__main__":
    unittest.main(verbosity=2)
