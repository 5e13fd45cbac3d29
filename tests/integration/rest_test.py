"""What a site costs while nobody calls: memory of warm workers, processor time of everything."""

import os
import time
import unittest

from sublet_site import ECHO, Site

WORKER_BYTES_MAX = 10_000_000  # Beyond its buffers, which are address space until they are used.
WATCHED_S = 4
SHARE_OF_A_CORE_MAX = 0.05  # Of all processes together; measured: 0.001.


def pss_bytes(pid):
    """Pages of its own, and its share of those that it has in common with others."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no Pss line")


def processor_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class RestTest(unittest.TestCase):
    def setUp(self):
        self.site = Site()
        self.addCleanup(self.site.close)
        self.site.start_agent("n1", "--cores", "4", "--oversubscribe", ready=4)
        self.site.deploy_probe()
        self.site.call(ECHO, b"x", check=True)  # From now on the agent keeps workers that have it loaded.
        self.site.wait_ready(workers=4)

    def test_an_idle_warm_worker_is_small(self):
        workers = self.site.workers()
        self.assertGreaterEqual(len(workers), 4)
        sizes = {pid: pss_bytes(pid) for pid in workers}
        print("PSS of idle workers, bytes:", sorted(sizes.values()))
        self.assertLess(max(sizes.values()), WORKER_BYTES_MAX, sizes)

    def test_an_idle_site_uses_no_processor_time_worth_mentioning(self):
        processes = [self.site.manager.pid, *(child.pid for child in self.site.children if child.poll() is None),
                     *self.site.workers(), *self.site.template()]
        processes = sorted(set(processes))
        before = sum(processor_s(pid) for pid in processes)
        time.sleep(WATCHED_S)  # Idleness is what is measured: there is no event to wait for.
        share = (sum(processor_s(pid) for pid in processes) - before) / WATCHED_S
        print(f"{len(processes)} idle processes: {share:.4f} of a core")
        self.assertLess(share, SHARE_OF_A_CORE_MAX)


if __name__ == "__main__":
    unittest.main(verbosity=2)
