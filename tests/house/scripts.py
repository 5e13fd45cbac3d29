#!/usr/bin/env python3
"""Fails on a script that bash, shellcheck or Python complains of, that nobody can execute or that has no --help."""

import os
import subprocess
import sys

import sources


def complaints(path):
    full = sources.ROOT / path
    if not os.access(full, os.X_OK):
        yield f"{path}: not executable"
    python = b"python3" in full.read_bytes().splitlines()[0]
    for command in [[sys.executable, "-W", "error", "-m", "ast"]] if python else [["bash", "-n"], ["shellcheck"]]:
        done = subprocess.run([*command, str(full)], cwd=sources.ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            yield f"{path}: {' '.join(command)}\n{done.stdout}{done.stderr}"
    if path.parts[0] != "scripts":
        return
    asked = subprocess.run([str(full), "--help"], cwd="/", capture_output=True, text=True, timeout=10)
    if asked.returncode != 0 or f"usage: {path}" not in asked.stdout.lower():
        yield f"{path} --help: does not print its usage"
    wrong = subprocess.run([str(full), "--nonsense"], cwd="/", capture_output=True, text=True, timeout=10)
    if wrong.returncode != 2 or "--nonsense" not in wrong.stderr:
        yield f"{path} --nonsense: exit {wrong.returncode}, expected 2 and a word about it"


def main() -> int:
    paths = [path for path in sources.files()
             if path.suffix in ("", ".sh") and (sources.ROOT / path).read_bytes().startswith(b"#!")]
    found = [line for path in paths for line in complaints(path)]
    print("\n".join(found) or f"{len(paths)} scripts are in order")
    return 1 if found or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
