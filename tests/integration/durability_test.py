"""The manager's state: killed with -9 at any moment it loses nothing that it has answered; a disk that is full, a file
that is damaged or somebody else's, and a directory that cannot be written are told and lose nothing."""

import hashlib
import http.client
import json
import os
import random
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import unittest
import urllib.error
import urllib.request

from sublet_site import BIN, PATIENCE_S, wait_until

SEED = int(os.environ.get("SUBLET_DURABILITY_SEED", random.randrange(2 ** 32)))
KILLS = 12
NODE = {"name": "n1", "machine": "boot", "cores": 64, "memory_bytes": 1 << 40, "worker_region_bytes": 1, "version": "1"}


class Manager:
    """One manager process on one state directory, killed and started again."""

    def __init__(self, state):
        self.state = state
        self.process = None
        self.port = 0
        self.start()

    def start(self):
        port_file = os.path.join(os.path.dirname(self.state), "port")
        if os.path.exists(port_file):
            os.unlink(port_file)
        self.process = subprocess.Popen(
            [os.path.join(BIN, "sublet-manager"), "--port", str(self.port), "--port-file", port_file, "--state-dir",
             self.state, "--log-level", "error"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_until(lambda: os.path.exists(port_file) or self.process.poll() is not None, "the manager listens")
        assert self.process.poll() is None, self.process.stderr.read()
        with open(port_file, encoding="ascii") as file:
            self.port = int(file.read())

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def end(self):
        self.process.terminate()
        status = self.process.wait(PATIENCE_S)
        self.process.stderr.close()
        return status

    def call(self, method, path, body=None, headers=None):
        """The status and the answer; None when the manager died meanwhile."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, self.parsed(answer)
        except urllib.error.HTTPError as error:
            return error.code, self.parsed(error)
        except (OSError, ValueError, http.client.HTTPException):
            return None, None

    @staticmethod
    def parsed(answer):
        text = answer.read()
        return json.loads(text) if answer.headers.get("Content-Type") == "application/json" and text else text

    def deploy(self, name, data):
        return self.call("PUT", f"/v1/functions/{name}/1", data, {"Sublet-Digest": hashlib.sha256(data).hexdigest()})


class DurabilityTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="sublet-durability-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.state = os.path.join(self.directory, "state")

    def start(self):
        manager = Manager(self.state)
        self.addCleanup(manager.kill)
        return manager

    def refused(self, *expected, user=None):
        """A start that must fail, saying `expected`."""
        command = [os.path.join(BIN, "sublet-manager"), "--port", "0", "--state-dir", self.state]
        if user is not None:
            command = ["setpriv", f"--reuid={user}", "--clear-groups", *command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        for text in expected:
            self.assertIn(text, done.stderr)


class KillTest(DurabilityTest):
    """Clients note what was answered; what was asked and not answered may be either."""

    def setUp(self):
        super().setUp()
        print(f"SUBLET_DURABILITY_SEED={SEED}")
        self.manager = self.start()
        self.assertEqual(self.manager.deploy("echo", b"library")[0], 201)
        self.node = self.manager.call("POST", "/v1/nodes", NODE)[1]["node"]
        self.lock = threading.Lock()
        self.active, self.ended, self.unknown = {}, set(), set()
        self.functions = {"echo": b"library"}
        self.used = {}
        self.workers = set(range(1, 60))  # Of the node: a worker goes with its lease, and another one comes.
        self.granted = {}
        self.one_heartbeat = threading.Lock()
        self.stop = threading.Event()
        self.round = 0

    def ready(self, workers):
        return [{"id": worker, "endpoints": {"tcp": "127.0.0.1:1"}, "function": 0} for worker in workers]

    def heartbeat(self, usage=()):
        with self.one_heartbeat:
            with self.lock:
                body = {"ready": self.ready(sorted(self.workers)), "usage": list(usage)}
            return self.manager.call("POST", f"/v1/nodes/{self.node}/heartbeat", body)

    def work(self, number):
        choose = random.Random(f"{SEED} {self.round} {number}")
        while not self.stop.is_set():
            action = choose.random()
            if action < 0.5 and len(self.active) < 30:
                status, grant = self.manager.call("POST", "/v1/leases", {"function": "echo", "ttl_ms": 600_000})
                if status == 201:
                    with self.lock:
                        self.active[grant["lease"]] = grant["expiry_ms"]
                        self.granted[grant["lease"]] = grant["workers"][0]["worker"]
            elif action < 0.7:
                self.release(choose)
            elif action < 0.8:
                self.renew(choose)
            elif action < 0.95:
                self.account(choose)
            else:
                name = f"f{number}-{choose.randrange(10 ** 9)}"
                data = choose.randbytes(choose.randrange(1, 100_000))
                if self.manager.deploy(name, data)[0] == 201:
                    with self.lock:
                        self.functions[name] = data

    def pick(self, choose):
        with self.lock:
            return choose.choice(sorted(self.active)) if self.active else None

    def release(self, choose):
        with self.lock:
            lease = choose.choice(sorted(self.active)) if self.active else None
            if lease is None:
                return
            self.active.pop(lease)
            self.unknown.add(lease)
        status, info = self.manager.call("DELETE", f"/v1/leases/{lease}")
        if status == 200:
            assert info["state"] == "ended"
            with self.lock:
                self.unknown.discard(lease)
                self.ended.add(lease)
                self.workers.remove(self.granted[lease])
                self.workers.add(max(self.workers) + 1)
            self.heartbeat()

    def renew(self, choose):
        lease = self.pick(choose)
        if lease is None:
            return
        status, grant = self.manager.call("POST", f"/v1/leases/{lease}/renew", {"ttl_ms": 700_000})
        if status == 200:
            with self.lock:
                if lease in self.active:
                    self.active[lease] = max(self.active[lease], grant["expiry_ms"])

    def account(self, choose):
        lease = self.pick(choose)
        if lease is None:
            return
        with self.lock:
            calls = self.used.get(lease, {"calls": 0})["calls"] + choose.randrange(1, 10 ** 6)
        used = {"id": lease, "lease": lease, "calls_started": calls, "calls": calls, "execution_ns": calls * 7,
                "hot_ns": calls * 3}
        if self.heartbeat([used])[0] == 200:
            with self.lock:
                self.used[lease] = max(used, self.used.get(lease, used), key=lambda account: account["calls"])

    def check(self):
        leases = {}
        page = self.manager.call("GET", "/v1/leases?state=active&limit=10000")[1]["leases"]
        leases = {lease["lease"]: lease for lease in page}
        for lease, expiry in self.active.items():
            self.assertIn(lease, leases, "a granted lease is lost")
            self.assertGreaterEqual(leases[lease]["expiry_ms"], expiry, "a renewal is lost")
            self.assertEqual(len(leases[lease]["workers"]), 1, "a lease has lost its worker")
        for lease in self.ended:
            self.assertNotIn(lease, leases, "a released lease is back")
        workers = [lease["workers"][0]["worker"] for lease in leases.values() if lease["workers"]]
        self.assertEqual(len(workers), len(set(workers)), "a worker is in two leases")
        known = {function["name"]: function["id"] for function in self.manager.call("GET", "/v1/functions")[1]["functions"]}
        for name, data in self.functions.items():
            self.assertIn(name, known, "a deployed function is lost")
            self.assertEqual(self.manager.call("GET", f"/v1/functions/by-id/{known[name]}")[1], data)
        rows = {row["worker"]: row for row in self.manager.call("GET", "/v1/usage?by=worker")[1]["rows"]}
        for account, used in self.used.items():
            self.assertIn(account, rows, "what was used is lost")
            for name in ("lease", "calls_started", "calls", "execution_ns", "hot_ns"):
                self.assertGreaterEqual(rows[account][name], used[name])

    def test_nothing_that_was_answered_is_lost_by_a_kill(self):
        choose = random.Random(SEED)
        self.assertEqual(self.heartbeat()[0], 200)
        for _ in range(KILLS):
            self.stop.clear()
            self.round += 1
            before = len(self.active) + len(self.ended) + len(self.used)
            threads = [threading.Thread(target=self.work, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            target = before + choose.randrange(1, 60)
            wait_until(lambda: len(self.active) + len(self.ended) + len(self.used) >= target, "some work is done")
            self.manager.kill()
            self.stop.set()
            for thread in threads:
                thread.join()
            self.manager.start()
            self.check()
            # The node goes on under its number and says everything when it is asked to.
            status, answer = self.manager.call("POST", f"/v1/nodes/{self.node}/heartbeat", {"unchanged": True})
            self.assertEqual((status, answer["resend"]), (200, True))
            self.assertEqual(self.heartbeat()[1]["resend"], False)
            self.check()

    def test_workers_of_ended_leases_are_ended_again_after_a_kill(self):
        self.assertEqual(self.heartbeat()[0], 200)
        lease = self.manager.call("POST", "/v1/leases", {"function": "echo"})[1]["lease"]
        self.assertEqual(self.manager.call("DELETE", f"/v1/leases/{lease}")[0], 200)
        self.manager.kill()  # Before the node took the command.
        self.manager.start()
        commands = self.manager.call("GET", f"/v1/nodes/{self.node}/commands?after=7")[1]["commands"]
        self.assertEqual([(command["kind"], command["lease"]) for command in commands], [("end_lease", lease)])
        self.assertEqual(self.manager.call("GET", f"/v1/nodes/{self.node}")[1]["cores_leased"], 1)

    def test_orders_of_operators_outlive_the_manager_and_the_registration(self):
        self.assertEqual(self.manager.call("POST", f"/v1/nodes/{self.node}/cordon")[0], 200)
        self.manager.kill()
        self.manager.start()
        self.assertEqual(self.manager.call("GET", f"/v1/nodes/{self.node}")[1]["state"], "cordoned")
        again = self.manager.call("POST", "/v1/nodes", NODE)[1]["node"]
        self.assertEqual(self.manager.call("GET", f"/v1/nodes/{again}")[1]["state"], "cordoned")

    def test_a_stop_in_order_keeps_everything_too(self):
        self.assertEqual(self.heartbeat()[0], 200)
        grant = self.manager.call("POST", "/v1/leases", {"function": "echo", "ttl_ms": 600_000})[1]
        self.active[grant["lease"]] = grant["expiry_ms"]
        self.assertEqual(self.manager.end(), 0)
        self.manager.start()
        self.check()


class DiskTest(DurabilityTest):
    def test_a_full_disk_refuses_and_loses_nothing(self):
        os.mkdir(self.state, 0o700)
        if os.geteuid() != 0 or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", self.state], check=False).returncode != 0:
            self.skipTest("needs the right to mount a small file system")
        self.addCleanup(subprocess.run, ["umount", "--lazy", self.state], check=False)
        manager = self.start()
        self.assertEqual(manager.deploy("echo", b"library")[0], 201)
        node = manager.call("POST", "/v1/nodes", NODE)[1]["node"]
        heartbeat = {"ready": [{"id": worker, "endpoints": {"tcp": "127.0.0.1:1"}, "function": 0} for worker in range(60)]}
        self.assertEqual(manager.call("POST", f"/v1/nodes/{node}/heartbeat", heartbeat)[0], 200)
        kept = manager.call("POST", "/v1/leases", {"function": "echo", "ttl_ms": 600_000})[1]["lease"]
        status, answer = manager.deploy("large", os.urandom(4 << 20))
        self.assertEqual((status, answer["error"]), (500, "io_error"))
        self.assertIn("No space left", answer["message"])
        filler = os.path.join(self.state, "filler")
        with open(filler, "wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                pass
        granted = []

        def refused():
            status, answer = manager.call("POST", "/v1/leases", {"function": "echo", "ttl_ms": 600_000})
            if status == 201:
                granted.append(answer["lease"])
            return answer if status == 503 else None
        answer = wait_until(refused, "a grant is refused")
        self.assertEqual(answer["error"], "unavailable")
        self.assertIn("cannot write its state", answer["message"])
        self.assertEqual(manager.call("GET", "/readyz")[0], 503)
        self.assertEqual(manager.call("GET", "/healthz")[0], 200)
        self.assertIn(b"sublet_state_writable 0", manager.call("GET", "/metrics")[1])
        os.unlink(filler)
        wait_until(lambda: manager.call("GET", "/readyz")[0] == 200, "the manager goes on")
        granted.append(manager.call("POST", "/v1/leases", {"function": "echo", "ttl_ms": 600_000})[1]["lease"])
        manager.kill()
        manager.start()
        active = {lease["lease"] for lease in manager.call("GET", "/v1/leases?state=active")[1]["leases"]}
        self.assertEqual(active, {kept, *granted})
        self.assertEqual(manager.deploy("large", b"smaller")[0], 201)

    def test_a_damaged_or_foreign_file_is_told_at_the_start_and_left_alone(self):
        manager = self.start()
        for number in range(50):
            manager.call("POST", "/v1/nodes", {**NODE, "name": f"n{number}"})
        manager.end()
        database = os.path.join(self.state, "sublet.db")
        with open(database, "rb") as file:
            good = file.read()
        cases = {"garbage": (b"garbage" * 1000, "not a database"),
                 "a hole": (good[:4096] + b"\xff" * 4096 + good[8192:], "restore a backup"),
                 "cut short": (good[:len(good) // 2], "restore a backup")}
        for name, (bad, expected) in cases.items():
            with self.subTest(name):
                with open(database, "wb") as file:
                    file.write(bad)
                self.refused(database, expected)
                with open(database, "rb") as file:
                    self.assertEqual(file.read(), bad)
        os.unlink(database)
        other = sqlite3.connect(database)
        other.execute("CREATE TABLE theirs(a)")
        other.commit()
        other.close()
        os.chmod(database, 0o600)
        self.refused("another program")
        with open(database, "wb") as file:
            file.write(good)
        newer = sqlite3.connect(database)
        newer.execute("PRAGMA user_version=99")
        newer.commit()
        newer.close()
        self.refused("newer sublet-manager")
        os.chmod(database, 0o644)
        self.refused("chmod 600")
        with open(database, "wb") as file:
            file.write(good)
        os.chmod(database, 0o600)
        manager.start()
        self.assertEqual(len(manager.call("GET", "/v1/nodes")[1]["nodes"]), 50)

    def test_a_directory_that_cannot_be_written_is_told_at_the_start(self):
        if os.geteuid() != 0:
            self.skipTest("needs root to become somebody else")
        os.chmod(self.directory, 0o755)
        os.mkdir(self.state, 0o755)
        self.refused(self.state, "Permission denied", user=65534)
        self.start().kill()
        self.refused(self.state, "Permission denied", user=65534)


if __name__ == "__main__":
    unittest.main(verbosity=2)
