"""A manager and agents as real processes in a private directory, for tests that kill and inspect them."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

BIN = os.environ["SUBLET_BIN"]
FUNCTIONS = os.environ["SUBLET_FUNCTIONS"]
PATIENCE_S = 30  # Bound of every wait; reaching it is a failure.

# Entries of tests/integration/functions/probe.cpp.
ECHO, FAIL, CRASH, SPIN, HOG, OVERFLOW_STACK, REVERSE, LEAVE_BEHIND = range(8)


def wait_until(condition, what, patience_s=PATIENCE_S):
    """Polls for something that sends no event to this process; returns what the condition returned."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {patience_s} s: {what}")


def number(value):
    return int(value).to_bytes(4, "little")


def processes(marker):
    """Live processes whose environment names the marker: all that descend from one test's agent."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                if marker.encode() not in file.read():
                    continue
            with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as file:
                state = file.read().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if state not in "ZX":
            found.append(int(entry))
    return found


def command_name(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def is_inside_a_call(worker):
    try:
        with open(f"/proc/{worker}/maps", encoding="ascii", errors="replace") as file:
            page = re.search(r" (/\S+/usage/\S+/\d+\.\d+)$", file.read(), re.MULTILINE)
        if not page:
            return False  # It has no lease.
        with open(page.group(1), "rb") as file:
            record = struct.unpack("<5Q", file.read(40))  # executor/local/usage_page.hpp
    except OSError:
        return False
    _, calls, _, _, calls_started = record
    return calls_started > calls


class Site:
    """One manager, any number of agents; everything ends with close()."""

    def __init__(self, manager_options=(), env=None):
        self.directory = tempfile.mkdtemp(prefix="sublet-site-")
        self.marker = f"SUBLET_TEST_SITE={os.path.basename(self.directory)}"
        self.manager_options = manager_options
        self.env = dict(env or os.environ, SUBLET_TEST_SITE=os.path.basename(self.directory), TMPDIR=self.directory)
        self.children = []
        self.port = 0
        self.manager = None
        self.start_manager()

    def start(self, program, *options):
        log = open(os.path.join(self.directory, f"{program}.{len(self.children)}.log"), "wb")
        child = subprocess.Popen([os.path.join(BIN, program), *options], env=self.env, stdin=subprocess.DEVNULL,
                                 stdout=log, stderr=log)
        log.close()
        self.children.append(child)
        return child

    def start_manager(self):
        port_file = os.path.join(self.directory, "port")
        if os.path.exists(port_file):
            os.unlink(port_file)
        self.manager = self.start("sublet-manager", "--port", str(self.port), "--port-file", port_file, "--state-dir",
                                  os.path.join(self.directory, "manager"), *self.manager_options)
        wait_until(lambda: os.path.exists(port_file) or self.manager.poll() is not None, "the manager listens")
        with open(port_file, encoding="ascii") as file:
            self.port = int(file.read())
        self.url = f"http://127.0.0.1:{self.port}"
        self.env["SUBLET_MANAGER"] = self.url

    def start_agent(self, name="n1", *options, ready=1):
        agent = self.start("sublet-agent", "--name", name, *options)
        self.wait_ready(name, ready)
        return agent

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def node(self, name="n1"):
        try:
            nodes = [node for node in self.get("/v1/nodes")["nodes"] if node["name"] == name and node["state"] != "lost"]
        except OSError:
            return None
        return nodes[-1] if nodes else None

    def wait_ready(self, name="n1", workers=1):
        return wait_until(lambda: (self.node(name) or {}).get("workers_ready", 0) >= workers and self.node(name),
                          f"{workers} ready workers on {name}\n{self.logs()}")

    def deploy(self, name):
        self.sublet("deploy", f"{name}@1", os.path.join(FUNCTIONS, f"{name}_function.so"), check=True)

    def deploy_probe(self):
        self.deploy("probe")

    def sublet(self, *arguments, data=b"", check=False):
        done = subprocess.run([os.path.join(BIN, "sublet"), *arguments], env=self.env, input=data, capture_output=True,
                              timeout=PATIENCE_S * 2, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"sublet {arguments}: {done.stderr.decode()}\n{self.logs()}")
        return done

    def call(self, entry, data=b"", *options, check=False):
        return self.sublet("invoke", "probe@1", "--entry", str(entry), "--input", "-", *options, data=data, check=check)

    def call_in_background(self, entry, data=b"", *options):
        path = os.path.join(self.directory, f"input.{len(self.children)}")
        with open(path, "wb") as file:
            file.write(data)
        return self.start("sublet", "invoke", "probe@1", "--entry", str(entry), "--input", path, *options)

    def workers(self):
        return [pid for pid in processes(self.marker) if command_name(pid) == "sublet-worker"]

    def template(self):
        return [pid for pid in processes(self.marker) if command_name(pid) == "sublet-template"]

    def running(self):
        """Workers that are inside a call, by the page that they count in."""
        return [pid for pid in self.workers() if is_inside_a_call(pid)]

    def wait_running(self, count=1):
        return wait_until(lambda: len(self.running()) == count and self.running(), f"{count} calls run\n{self.logs()}")

    def logs(self):
        text = ""
        for name in sorted(os.listdir(self.directory)):
            if name.endswith(".log"):
                with open(os.path.join(self.directory, name), encoding="utf-8", errors="replace") as file:
                    text += f"--- {name}\n" + "".join(file.readlines()[-30:])
        return text

    def close(self):
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.kill()
            child.wait()
        leftover = wait_until(lambda: not processes(self.marker) or None, f"nothing is left of {self.marker}") or []
        shutil.rmtree(self.directory, ignore_errors=True)
        return leftover


def cpus_allowed(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        text = re.search(r"Cpus_allowed_list:\s*(\S+)", file.read()).group(1)
    cores = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores
