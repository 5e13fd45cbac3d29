"""A manager and an agent of a build, on free ports and in a folder of their own."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

START_MAX_S = 60.0
END_MAX_S = 30.0


def wait_for(what: str, ready, seconds: float = START_MAX_S):
    """Polls `ready` until it returns something true, which is returned."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = ready()
        if value:
            return value
        time.sleep(0.02)
    raise TimeoutError(f"no {what} within {seconds} s")


def marked(mark: str) -> list[int]:
    """The processes that carry `mark` in their environment, as everything does that is forked from one that has."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


class Site:
    """Use with `with`; fails when it leaves a process behind."""

    def __init__(self, build: pathlib.Path, workers: int):
        self.build, self.workers = build, workers
        self.bin = build / "bin"

    def __enter__(self) -> "Site":
        self._folder = tempfile.TemporaryDirectory(prefix="sublet-")
        self.folder = pathlib.Path(self._folder.name)
        self._mark = f"SUBLET_TEST={self.folder}"
        self._processes = []
        try:
            port = self.folder / "port"
            self._start("manager", "sublet-manager", "--port", "0", "--port-file", port,
                        "--state-dir", self.folder / "manager")
            wait_for("port", lambda: port.exists() and port.read_text().strip())
            self.url = f"http://127.0.0.1:{port.read_text().strip()}"
            self._start("agent", "sublet-agent", "--manager", self.url, "--state-dir", self.folder / "agent",
                        "--cores", self.workers, "--warm", self.workers, "--oversubscribe")
            self.wait_until_warm()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind, value, trace) -> None:
        left = self._end()
        if kind is None and left:
            raise RuntimeError(f"left over: {left}")

    def wait_until_warm(self) -> None:
        def ready():
            assert all(process.poll() is None for process in self._processes), self.logs()
            nodes = json.loads(self.run("sublet", "nodes", "--json").stdout)["nodes"]
            return sum(node["workers_ready"] for node in nodes) >= self.workers
        wait_for(f"{self.workers} warm workers", ready)

    def run(self, program: str, *arguments, check: bool = True) -> subprocess.CompletedProcess:
        done = subprocess.run([self.bin / program, *map(str, arguments)], capture_output=True, text=True, timeout=120,
                              env=os.environ | {"SUBLET_MANAGER": self.url})
        assert not check or done.returncode == 0, f"{program} {arguments}: {done}\n{self.logs()}"
        return done

    def logs(self) -> str:
        return "\n".join(f"--- {log.name}\n{log.read_text()[-4000:]}" for log in self.folder.glob("*.log"))

    def _start(self, name: str, program: str, *arguments) -> None:
        key, value = self._mark.split("=")
        with open(self.folder / f"{name}.log", "w") as log:
            self._processes.append(subprocess.Popen(
                [self.bin / program, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | {key: value}))

    def _end(self) -> list[int]:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END_MAX_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with contextlib.suppress(TimeoutError):
            wait_for("end", lambda: not marked(self._mark), 10.0)
        left = marked(self._mark)
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._folder.cleanup()
        return left
