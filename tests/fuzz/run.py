#!/usr/bin/env python3
"""Runs one fuzz harness over its corpus, then over new inputs for a bounded time.

Usage: run.py PROGRAM NAME SECONDS. The environment's SUBLET_FUZZ_SECONDS wins over SECONDS, SUBLET_FUZZ_SEED sets the
seed. An input that fails is printed, with the command that runs it again, and kept in the folder `crashes` beside the
program.
"""

import base64
import os
import pathlib
import random
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
RSS_MIB_MAX = 2048
INPUT_SECONDS_MAX = 30


def main() -> int:
    program, name = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
    seconds = int(os.environ.get("SUBLET_FUZZ_SECONDS", sys.argv[3]))
    seed = int(os.environ.get("SUBLET_FUZZ_SEED", random.randrange(1, 1 << 31)))
    corpus = HERE / "corpus" / name
    inputs = sorted(corpus.iterdir())
    if not inputs:
        print(f"{corpus} is empty: a harness without a corpus finds little")
        return 1
    crashes = program.parent / "crashes" / name
    crashes.mkdir(parents=True, exist_ok=True)
    known = set(crashes.iterdir())
    common = [str(program), f"-artifact_prefix={crashes}/", f"-rss_limit_mb={RSS_MIB_MAX}",
              f"-timeout={INPUT_SECONDS_MAX}", "-verbosity=1"]
    dictionary = HERE / f"{name}.dict"
    if dictionary.exists():
        common.append(f"-dict={dictionary}")
    print(f"{len(inputs)} inputs of the corpus, then {seconds} s with seed {seed}")
    done = subprocess.run([*common, *map(str, inputs)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode == 0 and seconds > 0:
        with tempfile.TemporaryDirectory() as fresh:
            done = subprocess.run([*common, f"-max_total_time={seconds}", f"-seed={seed}", "-print_final_stats=1",
                                   fresh, str(corpus)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = done.stdout.decode(errors="replace").splitlines()
    print("\n".join(lines[-60:] if done.returncode else lines[-12:]))
    for path in sorted(set(crashes.iterdir()) - known):
        print(f"\nthe input that failed, in base64: {base64.b64encode(path.read_bytes()).decode()}")
        print(f"again: {program} {path}")
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
