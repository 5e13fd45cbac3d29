#!/usr/bin/env python3
"""A short run of each benchmark: the report keeps to its schema, and no ratio is far out.
Usage: ratios_test.py BUILD_FOLDER CASE

Machines are noisy: a row fails only when the better quartile of its rounds' ratios is beyond twice the bar, and a
second run says so too."""

import json
import pathlib
import subprocess
import sys
import tempfile

import jsonschema

FAR_OUT = 2.0

TEXT = {"type": "string", "minLength": 1}
TIME = {"type": "number", "minimum": 0}
MACHINE = {"type": "object", "required": ["cpu", "cores", "system", "kernel", "libfabric", "compiler", "build",
                                          "governor", "date", "pinning", "load_before", "steal_percent"]}
ROW = {
    "type": "object",
    "required": ["bench", "transport", "mode", "size_bytes", "baseline", "rounds"],
    "properties": {"bench": TEXT, "transport": {"enum": ["tcp", "shm", "verbs"]}, "mode": {"enum": ["hot", "warm", "cold", "none"]},
                   "size_bytes": {"type": "integer", "minimum": 0}, "baseline": {"type": "string"},
                   "rounds": {"type": "number", "minimum": 1}},
    "additionalProperties": TIME,
}
REPORT = {
    "type": "object",
    "required": ["machine", "command", "rows", "left_out"],
    "properties": {"machine": MACHINE, "command": TEXT, "rows": {"type": "array", "minItems": 1, "items": ROW},
                   "left_out": {"type": "array", "items": {"type": "object", "required": ["baseline", "reason"],
                                                           "properties": {"baseline": TEXT, "reason": TEXT}}}},
    "additionalProperties": False,
}
ROUND_TRIP = ["rtt_us", "raw_rtt_us", "ratio", "ratio_q1", "ratio_q3", "p50_us", "p99_us", "p999_us", "max_us",
              "raw_p50_us", "raw_p99_us", "raw_p999_us", "raw_max_us"]


def report_of(build: pathlib.Path, *arguments) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "report.json"
        done = subprocess.run([build / "bin" / "sublet-bench", *map(str, arguments), "--json", file],
                              capture_output=True, text=True, timeout=280)
        print(done.stdout, done.stderr, flush=True)
        assert done.returncode == 0, done
        report = json.loads(file.read_text())
    jsonschema.validate(report, REPORT)
    assert report["command"].startswith("sublet-bench " + arguments[0]), report["command"]
    return report


def far_out(report: dict) -> list[str]:
    """The rows whose ratio is on the wrong side of twice, or half, its bar."""
    barred = [row for row in report["rows"] if "bar" in row or "bar_min" in row]
    assert barred, "no row has a bar"
    return [f"{row['baseline']}, {row['size_bytes']} bytes: {row['ratio']}" for row in barred
            if row["ratio_q1"] > FAR_OUT * row.get("bar", float("inf"))
            or row["ratio_q3"] < row.get("bar_min", 0) / FAR_OUT]


def near(build: pathlib.Path, *arguments) -> dict:
    report = report_of(build, *arguments)
    if far_out(report):
        report = report_of(build, *arguments)
    assert not far_out(report), far_out(report)
    return report


def check_round_trips(report: dict, sizes: list[int], baselines: set[str]) -> None:
    rows = report["rows"]
    assert sorted({row["size_bytes"] for row in rows}) == sizes
    left_out = {one["baseline"] for one in report["left_out"]}
    assert {row["baseline"] for row in rows} | left_out >= baselines, baselines
    for row in rows:
        assert all(name in row for name in ROUND_TRIP), row
        assert 0 < row["ratio_q1"] <= row["ratio"] <= row["ratio_q3"], row
        assert 0 < row["p50_us"] <= row["p99_us"] <= row["p999_us"] <= row["max_us"], row
        assert 0 < row["raw_p50_us"] <= row["raw_p99_us"] <= row["raw_p999_us"] <= row["raw_max_us"], row


def invoke_shm(build: pathlib.Path) -> None:
    report = near(build, "invoke", "--transport", "shm", "--size", "1,4096,100000", "--rounds", 5, "--calls", 200)
    check_round_trips(report, [1, 4096, 100000], {"shared memory", "libfabric shm", "unix socket", "TCP socket"})


def invoke_verbs(build: pathlib.Path) -> None:
    report = near(build, "invoke", "--transport", "verbs", "--size", "1,1024", "--rounds", 5, "--calls", 50)
    check_round_trips(report, [1, 1024], {"bare verbs", "ib_write_lat"})


def invoke_tcp(build: pathlib.Path) -> None:
    report = near(build, "invoke", "--transport", "tcp", "--size", "1,4096,100000", "--rounds", 5, "--calls", 200)
    check_round_trips(report, [1, 4096, 100000], {"libfabric tcp", "libfabric tcp, descriptor", "TCP socket",
                                                  "framed socket", "unix socket", "shared memory"})


def warm(build: pathlib.Path) -> None:
    for transport in ("shm", "tcp"):
        report = near(build, "invoke", "--transport", transport, "--mode", "warm", "--size", "64", "--rounds", 5,
                      "--calls", 50)
        assert all(row["mode"] == "warm" and row["pause_us"] > row["hot_us"] > 0 for row in report["rows"])


def anatomy(build: pathlib.Path) -> None:
    for transport in ("shm", "tcp"):
        report = report_of(build, "anatomy", "--transport", transport, "--passes", 5, "--rounds", 3, "--calls", 200)
        (row,) = report["rows"]
        assert row["rtt_us"] > row["submit_us"] > 0 and row["ratio"] > 0, row
        if report["left_out"]:
            continue  # Its reason is printed: tracing is forbidden here.
        assert row["worker_system_calls"] <= row["raw_peer_system_calls"], row
        assert row["worker_instructions"] < FAR_OUT * row["raw_peer_instructions"], row


def peers(build: pathlib.Path) -> None:
    if not (build / "bin" / "sublet-bench-grpc").exists():
        print("skipped: this build has no gRPC")
        sys.exit(77)
    report = report_of(build, "peers", "--transport", "tcp", "--size", "64,65536", "--rounds", 3, "--calls", 50)
    check_round_trips(report, [64, 65536], {"gRPC unary", "gRPC streaming"})
    assert not report["left_out"], report["left_out"]


def pipeline(build: pathlib.Path) -> None:
    for transport in ("shm", "tcp"):
        report = near(build, "pipeline", "--transport", transport, "--size", "64,1048576", "--window", "1,8",
                      "--workers", "1,2", "--rounds", 3, "--calls", 200)
        cases = {(row["size_bytes"], row["window"], row["workers"]) for row in report["rows"]}
        assert len(cases) == 8, cases
        for row in report["rows"]:
            assert abs(row["bytes_per_s"] / (row["calls_per_s"] * row["size_bytes"]) - 1) < 1e-4, row
            assert ("bar_min" in row) <= (row["size_bytes"] == 1048576 and row["workers"] == 1), row


def start(build: pathlib.Path) -> None:
    report = report_of(build, "start", "--transport", "shm", "--repeat", 3)
    assert [row["mode"] for row in report["rows"]] == ["warm", "cold", "none"]
    for row in report["rows"]:
        assert 0 < row["first_call_p50_us"] < row["total_p50_us"] <= row["total_max_us"], row
        assert row["lease_p50_us"] < row["total_p50_us"] and row["process_p50_us"] > 0, row
        assert (row["mode"] == "none") != ("connect_p50_us" in row), row


def burst(build: pathlib.Path) -> None:
    report = report_of(build, "burst", "--transport", "shm", "--workers", "1,8", "--rounds", 2)
    assert [row["workers"] for row in report["rows"]] == [1, 8]
    for row in report["rows"]:
        assert 0 < row["lease_us"] <= row["rtt_us"] <= row["max_us"] and row["calls_us"] > 0, row


def mix(build: pathlib.Path) -> None:
    report = report_of(build, "mix", "--transport", "shm", "--clients", 4, "--rounds", 2, "--calls", 200)
    (row,) = report["rows"]
    for name in ("fairness", "fairness_worst", "raw_fairness"):
        assert 1 / row["clients"] - 1e-5 <= row[name] <= 1 + 1e-5, row
    assert 0 < row["p50_us"] <= row["p99_us"] <= row["max_us"] and row["calls_per_s"] > 0, row


if __name__ == "__main__":
    {"invoke-shm": invoke_shm, "invoke-tcp": invoke_tcp, "invoke-verbs": invoke_verbs, "warm": warm, "anatomy": anatomy, "peers": peers,
     "pipeline": pipeline, "start": start, "burst": burst, "mix": mix}[sys.argv[2]](pathlib.Path(sys.argv[1]).resolve())
