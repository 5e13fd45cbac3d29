#!/usr/bin/env python3
"""Fails when clang-format would change a file."""

import shutil
import subprocess
import sys

import sources

# Debian 12's: other versions format a little differently, and a formatter that disagrees with itself helps nobody.
VERSION = 14


def main() -> int:
    tool = shutil.which(f"clang-format-{VERSION}") or shutil.which("clang-format")
    if tool is None:
        print("clang-format is missing: scripts/setup installs it")
        return 1
    version = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
    if f"version {VERSION}." not in version:
        print(f"skipped: {version.strip()} is not {VERSION}")
        return 77
    paths = [str(path) for path in sources.files(".cpp", ".hpp", ".h", ".c")]
    done = subprocess.run([tool, "--dry-run", "--Werror", *paths], cwd=sources.ROOT, capture_output=True, text=True)
    print(done.stderr or f"{len(paths)} files are formatted")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
