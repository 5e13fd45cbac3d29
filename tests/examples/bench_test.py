#!/usr/bin/env python3
"""sublet-bench measures, writes what it measured and refuses nonsense. Usage: bench_test.py BUILD_FOLDER"""

import json
import pathlib
import subprocess
import sys
import tempfile


def main() -> None:
    bench = pathlib.Path(sys.argv[1]).resolve() / "bin" / "sublet-bench"

    def run(*arguments) -> subprocess.CompletedProcess:
        return subprocess.run([bench, *map(str, arguments)], capture_output=True, text=True, timeout=240)

    for wrong in (["--nonsense"], [], ["fly"], ["invoke", "--transport", "pigeon"], ["invoke", "--size", "0"],
                  ["invoke", "--size", "x"], ["invoke", "--rounds", "0"], ["invoke", "fly"],
                  ["lease", "--clients", "0"], ["lease", "--nodes", "-1"], ["lease", "--ms", "x"],
                  ["chaos", "--minutes", "0"], ["chaos", "--agents", "0"], ["scale", "--nodes", "10001"], ["scale", "--ttl", "1"],
                  ["lease", "--manager-pid", "1"], ["lease", "--manager", "http://127.0.0.1:1", "--state-dir", "x"]):
        done = run(*wrong)
        assert done.returncode == 2 and done.stderr.startswith("sublet-bench: ") and not done.stdout, (wrong, done)

    with tempfile.TemporaryDirectory() as folder:
        for transport in ("shm", "tcp"):
            file = pathlib.Path(folder) / "figures.json"
            done = run("invoke", "--transport", transport, "--size", "64,100000", "--rounds", 2, "--calls", 20,
                       "--json", file)
            print(done.stdout, done.stderr)
            assert done.returncode == 0, done
            figures = json.loads(file.read_text())
            assert figures["transport"] == transport
            assert [one["bytes"] for one in figures["figures"]] == [64, 100000]
            for one in figures["figures"]:
                assert 0 < one["sublet_median_us"] <= one["sublet_p99_us"], one
                assert 0 < one["socket_median_us"] <= one["socket_p99_us"], one
                assert one["ratio_quartiles"][0] <= one["ratio_median"] <= one["ratio_quartiles"][1], one

        file = pathlib.Path(folder) / "lease.json"
        done = run("lease", "--clients", "1,3", "--rounds", 1, "--ms", 200, "--nodes", 4, "--workers", 32, "--json", file)
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


if __name__ == "__main__":
    main()
