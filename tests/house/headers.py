#!/usr/bin/env python3
"""Fails when a header does not compile alone. Usage: headers.py SCRATCH_FOLDER"""

import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile

import sources

FLAGS = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers",
         f"-I{sources.ROOT}", f"-I{sources.ROOT}/sdk/cpp", f"-I{sources.ROOT}/sdk/function"]


def compile_alone(scratch: pathlib.Path, header: pathlib.Path) -> str:
    """What the compiler says; nothing when it is content. One file a header, so that ccache knows it again."""
    unit = scratch / (str(header).replace("/", "_") + ".cpp")
    text = f'#include "{header}"\n#include "{header}"\n'
    if not unit.exists() or unit.read_text() != text:
        with tempfile.NamedTemporaryFile("w", dir=scratch, delete=False) as part:
            part.write(text)
        os.replace(part.name, unit)
    with tempfile.TemporaryDirectory(dir=scratch) as out:
        done = subprocess.run(["ccache", "g++", *FLAGS, "-c", unit.name, "-o", f"{out}/unit.o"],
                              cwd=scratch, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"{header}:\n{done.stderr}"


def compile_as_c(header: pathlib.Path) -> str:
    done = subprocess.run(["gcc", "-std=c11", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-x", "c",
                           "-include", str(sources.ROOT / header), "/dev/null"], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"{header} as C:\n{done.stderr}"


def main() -> int:
    scratch = pathlib.Path(sys.argv[1]).resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    headers = sources.files(".hpp", ".h")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda header: compile_alone(scratch, header), headers))
        results += pool.map(compile_as_c, [header for header in headers if header.suffix == ".h"])
    failures = [text for text in results if text]
    print("\n".join(failures) or f"{len(headers)} headers compile alone")
    return 1 if failures or not headers else 0


if __name__ == "__main__":
    sys.exit(main())
