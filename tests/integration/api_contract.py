"""Holds docs/api.yaml and sublet-manager to one another: every operation is there, answers what its schema
says and refuses what its schema refuses, and the manager has no route that the document lacks."""

import copy
import hashlib
import http.client
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import warnings
from pathlib import Path

import yaml

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import jsonschema

MANAGER = Path(os.environ["SUBLET_BIN"]) / "sublet-manager"
SPEC = yaml.safe_load((Path(__file__).resolve().parents[2] / "docs" / "api.yaml").read_text())
METHODS = ("get", "put", "post", "delete")
PATIENCE_S = 60
LIBRARY = b"\x7fELF: as far as the manager cares"
DIGEST = hashlib.sha256(LIBRARY).hexdigest()
NODE = {"name": "n1", "machine": "boot-1", "cores": 4, "memory_bytes": 8 << 30, "worker_region_bytes": 1 << 20,
        "version": "0.1.0"}


def heartbeat(*ready, serving=(), ended=()):
    return {"ready": [{"id": worker, "endpoints": {"tcp": "127.0.0.1:1"}, "function": 0} for worker in ready],
            "serving": [{"worker": worker, "lease": lease} for worker, lease in serving],
            "ended": list(ended), "draining": False}


def resolve(node):
    while "$ref" in node:
        target = SPEC
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        node = target
    return node


def validator(schema):
    return jsonschema.Draft7Validator(schema, resolver=jsonschema.RefResolver("", SPEC))


def operations():
    return {(method.upper(), path) for path, item in SPEC["paths"].items() for method in item if method in METHODS}


class Manager:
    def __init__(self, *options):
        self.directory = tempfile.TemporaryDirectory(prefix="sublet-api-")
        port_file = Path(self.directory.name) / "port"
        self.log = open(Path(self.directory.name) / "log", "w+b")
        self.process = subprocess.Popen([MANAGER, "--port", "0", "--port-file", port_file, *options], stderr=self.log)
        deadline = time.monotonic() + PATIENCE_S
        while not port_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the manager did not start: " + self.text())
            time.sleep(0.01)
        self.port = int(port_file.read_text())
        self.answered = set()

    def text(self):
        self.log.seek(0)
        return self.log.read().decode()

    def close(self):
        self.process.terminate()
        code = self.process.wait(PATIENCE_S)
        text = self.text()
        self.log.close()
        self.directory.cleanup()
        if code != 0:
            raise RuntimeError(f"the manager ended with {code}: {text}")

    def call(self, method, path, body=None, headers=None, query="", **parameters):
        """Calls one operation and checks the answer against the document."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        connection.request(method, path.format(**parameters) + query, data, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        documented = SPEC["paths"][path][method.lower()]["responses"]
        if str(answer.status) not in documented:
            raise AssertionError(f"{method} {path} answered {answer.status}, which docs/api.yaml lacks: {content}")
        response = resolve(documented[str(answer.status)])
        if answer.status < 300:
            self.answered.add((method, path))
        for name, header in response.get("headers", {}).items():
            validator(header["schema"]).validate(answer.headers[name])
        kinds = response.get("content")
        if kinds is None:
            assert content == b"", content
            return answer.status, None
        kind = answer.headers["Content-Type"].split(";")[0]
        if kind != "application/json":
            assert kind in kinds, kind
            return answer.status, content
        value = json.loads(content)
        validator(kinds[kind]["schema"]).validate(value)
        return answer.status, value

    def raw(self, data):
        """All that comes back for these bytes until the manager closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            parts = []
            try:
                while part := connection.recv(65536):
                    parts.append(part)
            except ConnectionResetError:
                pass
            return b"".join(parts)


class ApiContract(unittest.TestCase):
    def setUp(self):
        self.manager = Manager()
        self.addCleanup(self.manager.close)
        self.call = self.manager.call

    def expect(self, status, method, path, *arguments, **options):
        got, value = self.call(method, path, *arguments, **options)
        self.assertEqual(got, status, value)
        return value

    def deploy(self, data=LIBRARY, status=201, digest=None):
        return self.expect(status, "PUT", "/v1/functions/{name}/{version}", data, name="echo", version="1",
                           headers={"Sublet-Digest": digest or hashlib.sha256(data).hexdigest()})

    def join(self, *ready):
        node = self.expect(201, "POST", "/v1/nodes", NODE)["node"]
        self.expect(200, "POST", "/v1/nodes/{id}/heartbeat", heartbeat(*ready), id=node)
        return node

    def test_routes_are_the_documented_operations(self):
        printed = subprocess.run([MANAGER, "--print-routes"], check=True, capture_output=True, text=True).stdout
        self.assertEqual({tuple(line.split()) for line in printed.splitlines()}, operations())

    def test_every_operation_answers_as_documented(self):
        self.expect(200, "GET", "/healthz")
        self.expect(200, "GET", "/readyz")
        self.walk_functions()
        node = self.walk_nodes()
        self.walk_leases(node)
        self.expect(204, "DELETE", "/v1/functions/{name}/{version}", name="echo", version="1")
        self.expect(204, "DELETE", "/v1/nodes/{id}", id=node)
        self.expect(404, "DELETE", "/v1/nodes/{id}", id=node)
        self.check_metrics(self.expect(200, "GET", "/metrics").decode())
        self.assertEqual(self.manager.answered, operations())

    def walk_functions(self):
        self.deploy(status=400, digest="0" * 64)
        self.assertEqual(self.deploy()["digest"], DIGEST)
        self.deploy(status=200)
        self.assertEqual(self.deploy(b"others", status=409)["error"], "already_exists")
        self.deploy(status=400, digest="short")
        number = self.expect(200, "GET", "/v1/functions/{name}/{version}", name="echo", version="1")["id"]
        self.assertEqual(len(self.expect(200, "GET", "/v1/functions")["functions"]), 1)
        self.assertEqual(self.expect(200, "GET", "/v1/functions/by-id/{id}", id=number), LIBRARY)
        self.expect(404, "GET", "/v1/functions/by-id/{id}", id=2 ** 40)
        self.expect(400, "GET", "/v1/functions/by-id/{id}", id="x")
        self.expect(404, "GET", "/v1/functions/{name}/{version}", name="echo", version="2")
        self.expect(400, "PUT", "/v1/functions/{name}/{version}", LIBRARY, name="by-id", version="1",
                    headers={"Sublet-Digest": DIGEST})

    def walk_nodes(self):
        node = self.join(1, 2, 3)
        commands = self.expect(200, "GET", "/v1/nodes/{id}/commands", query="?after=0", id=node)["commands"]
        self.assertEqual([command["kind"] for command in commands], ["fetch_function"])
        self.assertEqual(self.expect(200, "GET", "/v1/nodes/{id}", id=node)["workers_ready"], 3)
        self.expect(404, "GET", "/v1/nodes/{id}", id=1)
        self.expect(400, "GET", "/v1/nodes/{id}", id="-1")
        self.assertEqual(self.expect(200, "POST", "/v1/nodes/{id}/drain", id=node)["state"], "draining")
        self.assertEqual(self.expect(200, "POST", "/v1/nodes/{id}/undrain", id=node)["state"], "up")
        self.assertEqual(self.expect(200, "POST", "/v1/nodes/{id}/cordon", id=node)["state"], "cordoned")
        self.assertEqual(self.expect(503, "POST", "/v1/leases", {"function": "echo"})["error"], "no_capacity")
        self.assertEqual(self.expect(200, "POST", "/v1/nodes/{id}/uncordon", id=node)["state"], "up")
        self.assertEqual(len(self.expect(200, "GET", "/v1/nodes")["nodes"]), 1)
        self.expect(404, "POST", "/v1/nodes/{id}/heartbeat", heartbeat(), id=1)
        return node

    def walk_leases(self, node):
        grant = self.expect(201, "POST", "/v1/leases", {"function": "echo", "workers": 2})
        lease = grant["lease"]
        self.assertTrue(all(len(worker["token"]) == 96 for worker in grant["workers"]))
        self.expect(409, "DELETE", "/v1/functions/{name}/{version}", name="echo", version="1")
        shown = self.expect(200, "GET", "/v1/leases/{id}", id=lease)
        self.assertTrue(all(worker["token"] == "" for worker in shown["workers"]))
        self.expect(200, "POST", "/v1/leases/{id}/renew", {"ttl_ms": 5000}, id=lease)
        lost = grant["workers"][0]["worker"]
        replaced = self.expect(201, "POST", "/v1/leases/{id}/replace", {"node": node, "worker": lost}, id=lease)
        self.assertEqual(len(replaced["workers"]), 1)
        refused = self.expect(503, "POST", "/v1/leases", {"function": "echo", "workers": 9})
        self.assertEqual(refused["error"], "no_capacity")
        self.assertIn("asked for 9 workers of 1 cores", refused["message"])
        self.expect(404, "POST", "/v1/leases", {"function": "nothing"})
        self.assertEqual(self.expect(200, "DELETE", "/v1/leases/{id}", id=lease)["reason"], "released")
        self.assertEqual(self.expect(200, "POST", "/v1/leases/{id}/revoke", id=lease)["reason"], "released")
        gone = self.expect(410, "POST", "/v1/leases/{id}/renew", {"ttl_ms": 5000}, id=lease)
        self.assertEqual(gone["error"], "closed")
        self.assertEqual(len(self.expect(200, "GET", "/v1/leases")["leases"]), 1)
        self.assertEqual(self.expect(200, "GET", "/v1/leases", query="?state=active")["leases"], [])
        self.expect(400, "GET", "/v1/leases", query="?state=sleepy")
        self.walk_usage(node, lease)

    def walk_usage(self, node, lease):
        used = {"id": 7, "lease": lease, "calls_started": 3, "calls": 2, "execution_ns": 5, "hot_ns": 6}
        for said in (used, {**used, "calls": 1, "execution_ns": 4}):  # Late: the greatest counts.
            self.expect(200, "POST", "/v1/nodes/{id}/heartbeat", {**heartbeat(1, 2, 3), "usage": [said]}, id=node)
        self.expect(400, "POST", "/v1/nodes/{id}/heartbeat", {"usage": [{**used, "calls": 4}]}, id=node)
        for by in ("lease", "tenant", "function"):
            rows = self.expect(200, "GET", "/v1/usage", query=f"?by={by}")["rows"]
            self.assertEqual(len(rows), 1)
            for name in ("calls_started", "calls", "execution_ns", "hot_ns"):
                self.assertEqual(rows[0][name], used[name])
            self.assertEqual((rows[0]["leases"], rows[0]["workers"]), (1, 3))
            self.assertEqual(rows[0]["core_ns"], rows[0]["lease_ns"])
            self.assertGreater(rows[0]["lease_ns"], 0)
        csv = self.expect(200, "GET", "/v1/usage", query="?by=worker&format=csv&tenant=default&function=echo")
        self.assertEqual(csv.decode().splitlines()[1], f"{lease},7,default,echo@1,,1,1,3,2,5,6,0,0,0")
        self.expect(400, "GET", "/v1/usage", query="?by=moon")
        self.assertEqual(self.expect(200, "GET", "/v1/tenants")["tenants"], [])

    def check_metrics(self, text):
        for line in text.splitlines():
            if not line.startswith("#"):
                float(line.rsplit(" ", 1)[1])
        for expected in ('sublet_grants_total 1', 'sublet_lease_ends_total{reason="released"} 1',
                         'sublet_refusals_total{error="no_capacity"} 2', 'sublet_grant_seconds_count 2',
                         'sublet_http_requests_total{method="POST",route="/v1/nodes",status="201"} 1'):
            self.assertIn(expected, text.splitlines())

    def test_requests_outside_their_schema_are_refused(self):
        node = self.join(1, 2)
        self.deploy()
        lease = self.expect(201, "POST", "/v1/leases", {"function": "echo"})["lease"]
        good = {"/v1/nodes": {**NODE, "name": "n2"},
                "/v1/nodes/{id}/heartbeat": heartbeat(1, 2),
                "/v1/leases": {"function": "echo", "tenant": "t", "workers": 1, "cores": 1, "memory_bytes": 0,
                               "ttl_ms": 1000, "wait_ms": 0, "transports": {"prefer": ["tcp"]}},
                "/v1/leases/{id}/renew": {"ttl_ms": 1000},
                "/v1/leases/{id}/replace": {"node": node, "worker": 77, "wait_ms": 0}}
        for path, item in SPEC["paths"].items():
            content = resolve(item.get("post", {}).get("requestBody", {})).get("content", {})
            if "application/json" not in content:
                continue
            schema = resolve(content["application/json"]["schema"])
            validator(schema).validate(good[path])
            identity = node if "nodes" in path else lease
            for what, body in self.spoiled(schema, good[path]):
                with self.subTest(path=path, what=what):
                    self.assertFalse(validator(schema).is_valid(body))
                    value = self.expect(400, "POST", path, body, id=identity)
                    self.assertEqual(value["error"], "invalid_argument")

    @staticmethod
    def spoiled(schema, good):
        yield "not an object", []
        yield "an unknown member", {**good, "surprise": 1}
        for name in schema.get("required", []):
            yield f"without {name}", {key: value for key, value in good.items() if key != name}
        for name, declared in schema["properties"].items():
            declared = resolve(declared)
            wrong = [None, {"x": 1}, 1.5] + (["1", True] if declared["type"] == "integer" else [1])
            wrong += [declared["minimum"] - 1] if "minimum" in declared else []
            wrong += [declared["maximum"] + 1] if "maximum" in declared else []
            for value in wrong:
                yield f"{name} = {value!r}", {**copy.deepcopy(good), name: value}

    def test_a_long_request_ends_with_a_command_or_a_newer_one(self):
        node = self.join(1)
        answers = []

        def poll():
            answers.append(self.call("GET", "/v1/nodes/{id}/commands", query="?after=0", id=node)[1]["commands"])

        threads = [threading.Thread(target=poll) for _ in range(2)]
        for thread in threads:
            thread.start()
        while not answers:  # One of the two has ended the other.
            time.sleep(0.01)
        self.assertEqual(answers, [[]])
        self.deploy()
        for thread in threads:
            thread.join(PATIENCE_S)
        self.assertEqual([command["kind"] for command in answers[1]], ["fetch_function"])

    def test_a_waiting_request_gets_what_comes_free(self):
        node = self.join()
        self.deploy()
        granted = []

        def ask():
            granted.append(self.call("POST", "/v1/leases", {"function": "echo", "wait_ms": 50_000}))

        thread = threading.Thread(target=ask)
        thread.start()
        while "sublet_lease_waiters 1" not in self.expect(200, "GET", "/metrics").decode():
            time.sleep(0.01)
        self.expect(200, "POST", "/v1/nodes/{id}/heartbeat", heartbeat(5), id=node)
        thread.join(PATIENCE_S)
        self.assertEqual(granted[0][0], 201)

    def test_a_waiting_request_whose_client_goes_takes_nothing(self):
        node = self.join()
        self.deploy()
        body = json.dumps({"function": "echo", "wait_ms": 500_000}).encode()
        with socket.create_connection(("127.0.0.1", self.manager.port), timeout=PATIENCE_S) as connection:
            connection.sendall(b"POST /v1/leases HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            while "sublet_lease_waiters 1" not in self.expect(200, "GET", "/metrics").decode():
                time.sleep(0.01)
        while "sublet_lease_waiters 0" not in self.expect(200, "GET", "/metrics").decode():
            time.sleep(0.01)
        self.expect(200, "POST", "/v1/nodes/{id}/heartbeat", heartbeat(5), id=node)
        self.assertEqual(self.expect(200, "GET", "/v1/leases")["leases"], [])

    def test_secrets_stay_out_of_logs_metrics_and_listings(self):
        key = self.expect(201, "POST", "/v1/nodes", NODE)
        self.expect(200, "POST", "/v1/nodes/{id}/heartbeat", heartbeat(1), id=key["node"])
        self.deploy()
        grant = self.expect(201, "POST", "/v1/leases", {"function": "echo"})
        seen = json.dumps([self.expect(200, "GET", "/v1/nodes"), self.expect(200, "GET", "/v1/leases"),
                           self.expect(200, "GET", "/metrics").decode(), self.manager.text()])
        self.assertNotIn(key["key"], seen)
        self.assertNotIn(grant["workers"][0]["token"], seen)

    def test_malformed_bytes_do_no_harm(self):
        deep = b"[" * 100_000
        self.manager.raw(os.urandom(4096))
        for data, status in (
                (b"\r\n\r\n\r\n", b""),
                (b"GET /healthz\r\n\r\n", b" 400 "),
                (b"GET / HTTP/9.9\r\n\r\n", b" 400 "),
                (b"GET http:// HTTP/1.1\r\n\r\n", b" 404 "),
                (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b" 431 "),
                (b"BREW /healthz HTTP/1.1\r\n\r\n", b" 405 "),
                (b"POST /v1/nodes HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b" 400 "),
                (b"POST /v1/nodes HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", b" 400 "),
                (b"POST /v1/nodes HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n", b" 413 "),
                (b"PUT /v1/functions/a/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b" 411 "),
                (b"POST /v1/nodes HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b" 400 "),
                (b"POST /v1/nodes HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(deep), deep), b" 400 "),
                (b"POST /v1/nodes HTTP/1.1\r\nContent-Length: 2\r\n\r\n\xff\xfe", b" 400 "),
                (b"POST /v1/nodes HTTP/1.1\r\nContent-Length: 50\r\n\r\nhalf", b"")):
            with self.subTest(data=data[:60]):
                self.assertIn(status, self.manager.raw(data)[:40])
        self.expect(200, "GET", "/healthz")


class CommandLine(unittest.TestCase):
    def run_manager(self, *options):
        return subprocess.run([MANAGER, *options], capture_output=True, text=True, timeout=PATIENCE_S)

    def test_wrong_flags_end_with_2_and_say_why(self):
        for options, said in ((["--bogus"], "bogus"), (["extra"], "extra"), (["--port", "99999"], "65535"),
                              (["--port", "x"], "x"), (["--log-level", "loud"], "loud"),
                              (["--listen", "localhost"], "numeric"), (["--listen", "0.0.0.0"], "--allow-public")):
            with self.subTest(options=options):
                done = self.run_manager(*options)
                self.assertEqual(done.returncode, 2)
                self.assertIn(said, done.stderr)

    def test_help_and_version_end_with_0(self):
        self.assertIn("--allow-public", self.run_manager("--help").stdout)
        self.assertRegex(self.run_manager("--version").stdout, r"^sublet-manager \d")

    def test_a_state_directory_has_one_manager_and_a_taken_port_is_told(self):
        with tempfile.TemporaryDirectory() as directory:
            state = Path(directory) / "state"
            first = Manager("--state-dir", state)
            try:
                self.assertEqual(state.stat().st_mode & 0o777, 0o700)
                done = self.run_manager("--port", "0", "--state-dir", state)
                self.assertEqual((done.returncode, "another manager uses" in done.stderr), (1, True))
                done = self.run_manager("--port", str(first.port))
                self.assertEqual((done.returncode, "cannot listen on" in done.stderr), (1, True))
            finally:
                first.close()
            Manager("--state-dir", state).close()


if __name__ == "__main__":
    unittest.main()
