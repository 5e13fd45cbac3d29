#!/usr/bin/env python3
"""What the `sublet` command makes of answers that a real manager gives rarely, or must never give."""

import http.server
import json
import os
import re
import subprocess
import threading
import time
import unittest

SUBLET = os.path.join(os.environ["SUBLET_BIN"], "sublet")
PATIENCE_S = 30

NODE = {"node": 5, "name": "n1", "state": "up", "cores": 4, "cores_leased": 2, "memory_bytes": 8 << 30,
        "memory_leased": 1 << 30, "workers_ready": 1, "workers_serving": 2, "gpus": 1, "gpus_leased": 1, "silent_ms": 12,
        "probation_ms": 0, "version": "0.1.0", "why": "", "ends_in_ms": 0}


class AnsweringManager(http.server.BaseHTTPRequestHandler):
    """Answers what a test wants: {path: (status, body)}."""

    protocol_version = "HTTP/1.1"
    answers = {}
    asked = []

    def answer(self):
        self.asked.append(f"{self.command} {self.path}")
        missing = (404, {"error": "not_found", "message": "there is no such path", "retry_after_ms": 0})
        status, body = self.answers.get(f"{self.command} {self.path}", missing)
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_):
        pass


class AnswerTest(unittest.TestCase):
    def setUp(self):
        AnsweringManager.answers = {}
        AnsweringManager.asked = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), AnsweringManager)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.env = dict(os.environ, SUBLET_MANAGER=f"http://127.0.0.1:{self.server.server_port}")

    def sublet(self, *arguments):
        return subprocess.run([SUBLET, *arguments], capture_output=True, env=self.env, text=True, timeout=PATIENCE_S, check=False)

    def test_an_older_manager_is_told_as_such(self):
        AnsweringManager.answers = {"GET /v1/nodes": (200, {"nodes": [NODE]}), "GET /v1/nodes/5": (200, NODE)}
        for arguments in (("usage",), ("tenants",), ("cordon", "n1"), ("uncordon", "5")):
            with self.subTest(arguments=arguments):
                done = self.sublet(*arguments)
                self.assertEqual((done.returncode, "is older than this command" in done.stderr), (1, True), done)

    def test_a_newer_manager_is_told_as_such(self):
        AnsweringManager.answers = {"GET /v1/nodes": (200, {"nodes": [dict(NODE, colour="blue")]})}
        done = self.sublet("nodes")
        self.assertEqual((done.returncode, "use a sublet of the manager's version" in done.stderr), (1, True), done)
        self.assertEqual(json.loads(self.sublet("nodes", "--json").stdout)["nodes"][0]["colour"], "blue")

    def test_what_is_no_manager_is_told(self):
        AnsweringManager.answers = {"GET /v1/nodes": (500, "<html>")}
        done = self.sublet("nodes")
        self.assertEqual((done.returncode, "is this the manager's address?" in done.stderr), (1, True), done)

    def test_names_cannot_steer_the_terminal(self):
        evil = "n\x1b[31m\u009b2J\n\x07\u202e"
        AnsweringManager.answers = {"GET /v1/nodes": (200, {"nodes": [dict(NODE, name=evil)]}),
                                    "GET /v1/functions": (503, {"error": "unavailable", "message": evil, "retry_after_ms": 0})}
        done = self.sublet("nodes")
        self.assertRegex(done.stdout.splitlines()[1], r"^n\?\[31m\?+2J\?+ +5 ")
        self.assertNotRegex(done.stdout, "[\x1b\x9b\x07]")
        self.assertNotRegex(self.sublet("functions").stderr, "[\x1b\x9b\x07]")
        names = self.sublet("--print-names", "nodes")
        self.assertEqual(names.stdout, "")

    def test_nodes_by_name_first_and_then_by_id(self):
        lost = dict(NODE, node=4, state="lost")
        named_like_an_id = dict(NODE, node=6, name="5")
        AnsweringManager.answers = {"GET /v1/nodes": (200, {"nodes": [lost, NODE, named_like_an_id]}),
                                    "POST /v1/nodes/5/cordon": (200, dict(NODE, state="cordoned")),
                                    "POST /v1/nodes/6/cordon": (200, dict(named_like_an_id, state="cordoned"))}
        self.assertEqual(self.sublet("cordon", "n1").stdout, "n1 is cordoned; it holds 2 of 4 cores\n")
        self.assertEqual(self.sublet("cordon", "5").stdout, "5 is cordoned; it holds 2 of 4 cores\n")
        self.assertEqual([asked for asked in AnsweringManager.asked if "POST" in asked],
                         ["POST /v1/nodes/5/cordon", "POST /v1/nodes/6/cordon"])

    def test_usage_in_units_that_are_read(self):
        row = {"lease": 0, "worker": 0, "tenant": "physics", "function_name": "", "state": "", "leases": 3, "workers": 4,
               "calls_started": 11, "calls": 10, "execution_ns": 1_500_000, "hot_ns": 90 * 10**9, "lease_ns": 7_380 * 10**9,
               "core_ns": 0, "gpu_ns": 0}
        body = {"time_ms": 1, "rows": [row]}
        AnsweringManager.answers = {
            "GET /v1/usage?by=tenant&format=json&limit=10000": (200, body),
            "GET /v1/usage?by=tenant&format=json&limit=10000&tenant=a%20b&function=f%401": (200, body),
            "GET /v1/usage?by=lease&format=csv&limit=1&after=7": (200, "lease,tenant\n1,physics\n")}
        heading, line = self.sublet("usage").stdout.splitlines()
        self.assertEqual(re.split(r"  +", heading.strip()),
                         ["TENANT", "LEASES", "WORKERS", "CALLS", "EXECUTION", "POLLING", "LEASED", "CORES", "GPUS"])
        self.assertEqual(re.split(r"  +", line.strip()),
                         ["physics", "3", "4", "10", "1.5 ms", "1 min 30 s", "2 h 3 min", "0 s", "0 s"])
        self.assertEqual(json.loads(self.sublet("usage", "--json").stdout), body)
        self.assertEqual(self.sublet("usage", "--tenant", "a b", "--function", "f@1").returncode, 0)
        done = self.sublet("usage", "--by", "lease", "--csv", "--limit", "1", "--after", "7")
        self.assertEqual(done.stdout, "lease,tenant\n1,physics\n")
        self.assertIn("--after", done.stderr, "one row of one: there may be more")

    def test_tenants_and_their_quotas(self):
        tenant = {"tenant": "physics", "share": 2, "cores_max": 0, "leases_max": 9, "cores": 3, "leases": 1, "waiting": 4}
        AnsweringManager.answers = {"GET /v1/tenants": (200, {"tenants": [tenant]})}
        self.assertEqual(self.sublet("tenants").stdout.splitlines()[1].split(), ["physics", "2", "3", "-", "1", "9", "4"])

    def test_the_doctor_measures_the_clock_and_asks_whether_the_manager_is_ready(self):
        health = {"status": "ok", "version": "0.0.9", "time_ms": int(time.time() * 1000) - 100_000, "started_ms": 1}
        AnsweringManager.answers = {"GET /healthz": (200, health),
                                    "GET /readyz": (503, {"error": "io_error", "message": "the disk is full", "retry_after_ms": 0})}
        done = self.sublet("doctor", "--json")
        checks = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
        self.assertEqual(done.returncode, 1)
        self.assertEqual(checks["clock"]["level"], "warn")
        self.assertRegex(checks["clock"]["found"], r"1 min 4\d s ahead of the manager's.*does not matter for leases")
        self.assertEqual((checks["manager ready"]["level"], checks["manager ready"]["found"]), ("fail", "the disk is full"))
        self.assertEqual(checks["manager"]["level"], "warn")
        AnsweringManager.answers |= {"GET /readyz": (200, health)}
        self.assertEqual(self.sublet("doctor").returncode, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
