#!/usr/bin/env python3
"""Runs the examples as their README files say. Usage: examples_test.py BUILD_FOLDER CASE"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

from local_site import Site, marked, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
PHOTOS = ROOT / "examples" / "thumbnail" / "photos"


def digits(build: pathlib.Path) -> None:
    with Site(build, workers=2) as site:
        site.run("sublet", "deploy", "digits@1", build / "lib" / "digits.so")
        for transport in ("shm", "tcp"):
            out = site.run("digits-client", "--manager", site.url, "--data", ROOT / "examples/digits/digits.csv.gz",
                           "--workers", 2, "--rounds", 20, "--transport", transport).stdout
            print(out)
            assert len(re.findall(rf"^worker \d+ on \S+: {transport} ", out, re.MULTILINE)) == 2
            assert float(re.search(r"accuracy: ([\d.]+) %", out)[1]) >= 95.0
            assert "p99" in out and "calls/s" in out
            site.wait_until_warm()
        low = site.run("digits-client", "--manager", site.url, "--data", ROOT / "examples/digits/digits.csv.gz",
                       "--rounds", 1, "--accuracy-min", "0.999", check=False)
        assert low.returncode == 1 and "below" in low.stderr, low
        assert site.run("digits-client", "--workers", "x", check=False).returncode == 2
        assert site.run("digits-client", check=False).returncode == 2


def thumbnail(build: pathlib.Path) -> None:
    with Site(build, workers=2) as site:
        site.run("sublet", "deploy", "thumbnail@1", build / "lib" / "thumbnail.so")
        broken = site.folder / "broken.jpg"
        broken.write_bytes((PHOTOS / "china.jpg").read_bytes()[:9000])
        done = site.run("thumbnail-client", "--manager", site.url, "--out", site.folder, "--edge", 120,
                        PHOTOS / "china.jpg", broken, PHOTOS / "flower.jpg", check=False)
        print(done.stdout, done.stderr)
        assert done.returncode == 1 and "broken.jpg: function_failed: " in done.stderr, done
        for name in ("china-120.jpg", "flower-120.jpg"):
            assert edges((site.folder / name).read_bytes()) == (120, 80)
        assert not (site.folder / "broken-120.jpg").exists()


def edges(jpeg: bytes) -> tuple[int, int]:
    """Width and height from a JPEG's baseline frame header."""
    at = jpeg.index(b"\xff\xc0")
    return int.from_bytes(jpeg[at + 7:at + 9], "big"), int.from_bytes(jpeg[at + 5:at + 7], "big")


def readme(build: pathlib.Path) -> None:
    """Compiles README's blocks with the build's own library and runs them."""
    blocks = dict(re.findall(r"^```cpp\n// (\S+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S))
    with Site(build, workers=2) as site:
        for name, code in blocks.items():
            (site.folder / name).write_text(code)
        flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}", f"-I{ROOT}/sdk/cpp", f"-I{ROOT}/sdk/function"]
        subprocess.run(["g++", *flags, "-fPIC", "-shared", "-o", "upper.so", "upper.cpp"], cwd=site.folder, check=True)
        subprocess.run(["g++", *flags, "-o", "shout", "shout.cpp", f"-L{build}/lib", "-lsublet",
                        f"-Wl,-rpath,{build}/lib"], cwd=site.folder, check=True)
        site.run("sublet", "deploy", "upper@1", site.folder / "upper.so")
        said = subprocess.run([site.folder / "shout", site.url], capture_output=True, text=True, timeout=60)
        assert said.stdout == "HELLO, WORKER\n", (said, site.logs())


def quickstart(build: pathlib.Path) -> None:
    script = ROOT / "scripts" / "quickstart"
    with tempfile.TemporaryDirectory() as folder:
        def start(*arguments: str) -> subprocess.Popen:
            # TMPDIR tells our copy's processes from another's. A group of its own stands for a terminal's, and
            # whoever runs the tests may have told us to ignore SIGINT, which bash would keep to.
            return subprocess.Popen([script, *arguments], cwd="/", env=os.environ | {"TMPDIR": folder}, text=True,
                                    start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

        def nothing_is_left() -> None:
            assert not marked(f"TMPDIR={folder}"), "processes are left over"
            assert not os.listdir(folder), "files are left over"

        whole = start()
        out, err = whole.communicate(timeout=240)
        print(out, err)
        assert whole.returncode == 0 and out.count("accuracy: 97") == 2, (whole.returncode, err)
        nothing_is_left()

        for stop in (signal.SIGINT, signal.SIGTERM):
            stopped = start()
            wait_for("agent", lambda: list(pathlib.Path(folder).glob("*/agent.log")), 240)
            os.killpg(stopped.pid, stop)
            stopped.communicate(timeout=60)
            assert stopped.returncode == 128 + stop, stopped.returncode
            nothing_is_left()

        failed = start("--transport", "pigeon")
        out, err = failed.communicate(timeout=240)
        assert failed.returncode not in (0, 2) and "the end of manager.log" in err and "pigeon" in err, err
        nothing_is_left()


if __name__ == "__main__":
    {"digits": digits, "thumbnail": thumbnail, "readme": readme, "quickstart": quickstart}[sys.argv[2]](
        pathlib.Path(sys.argv[1]).resolve())
