#!/usr/bin/env python3
"""Fails on what no reader wants to find: unfinished business, long files, stray characters, private places."""

import re
import sys

import sources

LINES_MAX = 500
# Path: the reason for which it may be longer.
LONG = {
    "LICENSE": "the licence's own text",
    "docs/api.yaml": "one description of one API",
    "examples/digits/weights.inc": "numbers",
}
BINARY = (".bin", ".gz", ".jpg", ".png")
MARKERS = re.compile(r"\b(FIX" "ME|TO" "DO|XX" "X|HA" "CK)\b")
# Places that exist on one person's machine only.
PRIVATE = re.compile(r"(?<![\w.])/(work|home|root|Users|mnt)/\w")
CODE = (".cpp", ".hpp", ".h", ".c")
# CMake takes it for the end of the name: the test would never run, and pass.
SEMICOLON = re.compile(r'TEST_CASE\(\s*"[^"]*;', re.MULTILINE)


def complaints(path, text: str):
    lines = text.splitlines()
    if len(lines) > LINES_MAX and str(path) not in LONG:
        yield f"{path}: {len(lines)} lines, more than {LINES_MAX}: split it, or list it in tests/house/tidy.py with a reason"
    if text and not text.endswith("\n"):
        yield f"{path}: the last line does not end"
    if path.suffix == ".hpp" and "#pragma once" not in text:
        yield f"{path}: no #pragma once"
    if SEMICOLON.search(text):
        yield f"{path}: a test's name has a semicolon"
    for number, line in enumerate(lines, 1):
        if MARKERS.search(line):
            yield f"{path}:{number}: unfinished business belongs into an issue"
        if PRIVATE.search(line):
            yield f"{path}:{number}: a place that other machines do not have"
        if line != line.rstrip() or "\r" in line:
            yield f"{path}:{number}: white space at the end of a line"
        if "\t" in line and path.suffix in CODE + (".py", ".md", ".yaml"):
            yield f"{path}:{number}: a tab"
        if path.suffix in CODE and "Copyright" in line:
            yield f"{path}:{number}: the licence stands in LICENSE"


def main() -> int:
    paths = [path for path in sources.files() if path.suffix not in BINARY]
    found = []
    for path in paths:
        found += complaints(path, (sources.ROOT / path).read_text(encoding="utf-8"))
    gone = [f"tests/house/tidy.py lists {name}, which is not there" for name in LONG
            if not (sources.ROOT / name).exists()]
    print("\n".join(found + gone) or f"{len(paths)} files are tidy")
    return 1 if found or gone or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
