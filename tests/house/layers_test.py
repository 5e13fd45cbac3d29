#!/usr/bin/env python3
"""Plants violations in a copy of the tree: layers.py must see each and name its file."""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import sources

PLANTED = {
    "runtime/base/limits.hpp": '#include "runtime/wire/word.hpp"',
    "runtime/wire/word.hpp": '#include "runtime/transport/transport.hpp"',
    "runtime/transport/transport.hpp": "#include <boost/asio.hpp>",
    "runtime/wire/request.hpp": "#include <spdlog/spdlog.h>",
    "runtime/memory/region.hpp": "#include <rdma/fabric.h>",
    "benchmarks/frame/rounds.hpp": "#include <rdma/fabric.h>",
    "runtime/control/api.hpp": '#include "runtime/lease/planted.hpp"',
    "client/planted.cpp": '#include "executor/agent/planted.hpp"',
    "client/other.cpp": '#include "runtime/manager/planted.hpp"',
    "executor/worker/planted.cpp": '#include "client/planted.hpp"',
    "runtime/manager/planted.cpp": '#include "client/planted.hpp"',
    "sdk/cpp/sublet/client.hpp": '#include "runtime/base/limits.hpp"',
    "sdk/function/sublet/function.h": '#include "runtime/base/result.hpp"',
    "examples/digits/client.cpp": '#include "runtime/base/result.hpp"',
    "unheard/of.cpp": "#include <vector>",
}
TARGETS = ["runtime/lease/planted.hpp", "executor/agent/planted.hpp", "runtime/manager/planted.hpp",
           "client/planted.hpp"]


def check(root: pathlib.Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(pathlib.Path(__file__).with_name("layers.py")), str(root)],
                          capture_output=True, text=True)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder).resolve()
        for path in sources.files(".hpp", ".h", ".cpp", ".c", ".inc"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sources.ROOT / path, root / path)
        for target in TARGETS:
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            (root / target).write_text("#pragma once\n")
        clean = check(root)
        if clean.returncode != 0:
            print("the copy should be clean:", clean.stdout, clean.stderr)
            return 1
        missed = 0
        for path, line in PLANTED.items():
            file = root / path
            before = file.read_text() if file.exists() else None
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text((before or "") + line + "\n")
            seen = check(root)
            if seen.returncode != 1 or path not in seen.stdout:
                print(f"not seen: {line} in {path}\n{seen.stdout}{seen.stderr}")
                missed += 1
            file.write_text(before) if before is not None else file.unlink()
        return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
