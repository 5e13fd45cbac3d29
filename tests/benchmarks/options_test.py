#!/usr/bin/env python3
"""sublet-bench refuses nonsense before it measures. Usage: options_test.py BUILD_FOLDER CASE"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

WRONG = [
    ["--nonsense"], [], ["fly"],
    ["invoke", "--transport", "pigeon"], ["invoke", "--mode", "tepid"], ["invoke", "--size", "0"],
    ["invoke", "--size", "x"], ["invoke", "--size", "1,99999999999"], ["invoke", "--rounds", "0"],
    ["invoke", "--calls", "0"], ["invoke", "--hot-us", "0"], ["invoke", "--pause-us", "x"], ["invoke", "fly"],
    ["invoke", "--json", "/nowhere/figures.json"], ["invoke", "--json", "/"],
    ["peers", "--transport", "pigeon"], ["peers", "--size", "0"],
    ["pipeline", "--transport", "pigeon"], ["pipeline", "--window", "0"], ["pipeline", "--window", "65"],
    ["pipeline", "--workers", "0"], ["pipeline", "--size", "0"], ["pipeline", "--json", "/nowhere/figures.json"],
    ["start", "--mode", "hot"], ["start", "--repeat", "0"], ["start", "--transport", ""],
    ["burst", "--workers", "257"], ["burst", "--workers", "0"], ["burst", "--rounds", "0"],
    ["mix", "--clients", "0"], ["mix", "--size", "0"], ["mix", "--calls", "x"], ["mix", "fly"],
    ["lease", "--clients", "0"], ["lease", "--nodes", "-1"], ["lease", "--ms", "x"], ["lease", "--manager-pid", "1"],
    ["lease", "--manager", "http://127.0.0.1:1", "--state-dir", "x"],
    ["chaos", "--minutes", "0"], ["chaos", "--agents", "0"],
    ["harvest", "--rounds", "0"], ["harvest", "--cores", "0"], ["harvest", "--replay", "-1"], ["harvest", "--busy", "0"],
    ["harvest", "--simulate", "--replay", "1"], ["harvest", "--simulate", "--pilots", "5/10"], ["harvest", "--simulate", "--nodes", "0"],
    ["harvest", "--simulate", "--median", "1000"], ["harvest", "--simulate", "--json", "/nowhere/figures.json"],
    ["scale", "--nodes", "10001"], ["scale", "--ttl", "1"],
]


def run(build: pathlib.Path, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run([build / "bin" / "sublet-bench", *map(str, arguments)], capture_output=True, text=True,
                          timeout=240)


def refuses(build: pathlib.Path) -> None:
    for wrong in WRONG:
        done = run(build, *wrong)
        assert done.returncode == 2 and done.stderr.startswith("sublet-bench: ") and not done.stdout, (wrong, done)
    told = run(build, "invoke", "--json", "/nowhere/figures.json").stderr
    assert "/nowhere/figures.json" in told and "No such file" in told, told
    # Two ends that poll on one core measure the scheduler.
    alone = subprocess.run(["taskset", "--cpu-list", "0", build / "bin" / "sublet-bench", "invoke"],
                           capture_output=True, text=True, timeout=60)
    assert alone.returncode == 1 and "one core" in alone.stderr and not alone.stdout, alone


def lease(build: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "lease.json"
        done = run(build, "lease", "--clients", "1,3", "--rounds", 1, "--ms", 200, "--nodes", 4, "--workers", 32,
                   "--json", file)
        print(done.stdout, done.stderr)
        assert done.returncode == 0, done
        figures = json.loads(file.read_text())
        assert figures["state_on"] in done.stdout
        assert [one["clients"] for one in figures["figures"]] == [1, 3]
        for one in figures["figures"]:
            assert 0 < one["releases_per_second"] <= one["grants_per_second"] + 10, one
            assert 0 < one["grant_p50_us"] <= one["grant_p99_us"], one
            assert 0 < one["release_p50_us"] <= one["release_p99_us"], one
            assert one["manager_cpu"] > 0 and one["bench_cpu"] > 0, one


def of_json(build: pathlib.Path, *arguments) -> list:
    """The rows that it has written; what it printed is printed."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "figures.json"
        done = run(build, *arguments, "--json", file)
        print(done.stdout, done.stderr)
        assert done.returncode == 0, done
        return json.loads(file.read_text())["rows"]


def agents() -> set:
    found = set()
    for each in pathlib.Path("/proc").iterdir():
        try:
            if each.name.isdigit() and (each / "comm").read_text() == "sublet-agent\n":
                found.add(each.name)
        except OSError:
            pass  # It has ended meanwhile.
    return found


def harvest(build: pathlib.Path) -> None:
    before = agents()
    rows = {row["mode"]: row for row in of_json(build, "harvest", "--rounds", 2, "--grace-ms", 100)}
    assert len(rows) == 6 and all(0 < row["median_ms"] <= row["max_ms"] for row in rows.values()), rows
    # A call that never ends is given its grace; nobody waits for one where there is none.
    assert rows["prolog, donated and busy"]["median_ms"] > 100, rows
    assert rows["prolog, not donated"]["median_ms"] < rows["prolog, donated and busy"]["median_ms"], rows
    [row] = of_json(build, "harvest", "--replay", 0.2, "--virtual-nodes", 2, "--quartile-low", 2, "--median", 3,
                    "--quartile-high", 5, "--busy", 1)
    assert row["gaps"] >= 2 and 0.3 < row["lent_share"] <= 1, row
    # Whatever ends the program, the agents end: they are nobody's children.
    killed = subprocess.Popen([build / "bin" / "sublet-bench", "harvest", "--replay", "1", "--busy", "0.1"])
    try:
        wait_until(lambda: agents() - before, "an agent")
    finally:
        killed.kill()
        killed.wait()
    wait_until(lambda: not agents() - before, "the agents' end")


def wait_until(holds, what: str) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


if __name__ == "__main__":
    {"refuses": refuses, "lease": lease, "harvest": harvest}[sys.argv[2]](pathlib.Path(sys.argv[1]).resolve())
