#!/usr/bin/env python3
"""Fails when systemd, or a program of ours, complains of a unit or an example configuration. Usage: units.py BUILD_FOLDER"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNITS = ROOT / "packaging" / "systemd"
PROGRAMS = ("manager", "agent")


def output_of(command: list[str]) -> tuple[int, str]:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    return done.returncode, done.stdout


def configuration_complaints(build: pathlib.Path, folder: pathlib.Path):
    for name in PROGRAMS:
        program = str(build / "bin" / f"sublet-{name}")
        example = UNITS / f"{name}.conf"
        status, printed = output_of([program, "--config", str(example), "--print-config"])
        if status != 0:
            yield f"{example.name}: {printed}"
            continue
        # The examples in comments must work too: without their "#   " they join the rest.
        whole = folder / f"{name}.conf"
        lines = example.read_text().splitlines()
        shown = [line.removeprefix("#   ") for line in lines if line.startswith("#   ")]
        keys = {line.split("=")[0].strip() for line in shown}
        plain = [line for line in lines if not line.startswith("#") and line.split("=")[0].strip() not in keys]
        whole.write_text("\n".join(plain + shown) + "\n")
        status, printed = output_of([program, "--config", str(whole), "--print-config"])
        if status != 0 or any(line.startswith("[") and line not in printed for line in shown):
            yield f"{example.name}, with what its comments show: {printed}"


def unit_complaints(build: pathlib.Path, folder: pathlib.Path):
    for name in PROGRAMS:
        unit = folder / f"sublet-{name}.service"
        text = (UNITS / f"{unit.name}.in").read_text().replace("@bindir@", str(build / "bin"))
        unit.write_text(text)
        status, said = output_of(["systemd-analyze", "verify", "--man=no", str(unit)])
        mine = [line for line in said.splitlines() if unit.name in line]
        if status != 0 or mine:
            yield f"{unit.name}: {said}"


def main() -> int:
    build = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        found = list(configuration_complaints(build, pathlib.Path(folder)))
        analyze = shutil.which("systemd-analyze")
        if analyze:
            found += unit_complaints(build, pathlib.Path(folder))
    print("\n".join(found) or f"{'units and ' if analyze else ''}configurations are in order")
    if found:
        return 1
    if not analyze:
        print("skipped: systemd-analyze, which reads the units, is not on this machine")
        return 77
    return 0


if __name__ == "__main__":
    sys.exit(main())
