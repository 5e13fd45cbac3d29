#!/usr/bin/env python3
"""Fails when a folder includes what its layer may not include. Usage: layers.py [ROOT]"""

import pathlib
import re
import sys

import sources

# Lowest first: a folder includes itself and those before it.
RUNTIME = ["base", "wire", "memory", "transport", "control", "lease", "manager"]
BELOW = {f"runtime/{name}": [f"runtime/{lower}" for lower in RUNTIME[:i]] for i, name in enumerate(RUNTIME)}
# Manager, executor and client never include one another: they meet in wire and in the HTTP API.
DATA = BELOW["runtime/control"]
PATH = DATA + ["runtime/control"]
BELOW |= {
    "executor/local": DATA,
    "executor/agent": PATH + ["executor/local"],
    "executor/worker": DATA + ["executor/local", "sdk/function"],
    "client/cli": ["client", "sdk/cpp"] + PATH,
    "client": PATH + ["sdk/cpp"],
    "sdk/function": [],
    "sdk/cpp": ["runtime/base/result.hpp", "client"],
    "sdk": [],
    "examples": ["sdk/cpp", "sdk/function"],
    "benchmarks": PATH + ["sdk/cpp", "sdk/function"],
    "tests": [""],
}
# A public header is installed: it may include nothing that is not.
PUBLIC_MAY = {"sdk/cpp": ["sdk/cpp", "runtime/base/result.hpp"], "sdk/function": ["sdk/function"]}

# Libraries that only these files may include.
ONLY = {
    r"boost/": ["runtime/control/"],
    r"spdlog/": ["runtime/base/log."],
    # A baseline is written straight against the provider: with our backend between, it would measure ours.
    r"rdma/fi_|rdma/fabric": ["runtime/transport/fabric/", "benchmarks/baselines/"],
    r"grpcpp/": ["benchmarks/peers/"],
    r"infiniband/|rdma/rdma_": ["runtime/transport/verbs/", "benchmarks/baselines/"],
    r"openssl/": ["runtime/base/", "runtime/control/"],
    r"cuda": ["runtime/memory/gpu_cuda.cpp"],
}

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.MULTILINE)


def folder_of(path: str) -> str:
    """The longest layer that `path` lies in, or nothing."""
    return max((f for f in BELOW if path.startswith(f + "/")), key=len, default="")


def resolved(root: pathlib.Path, path: str, kind: str, name: str) -> str:
    """The repository's path of an include; nothing when it is not ours."""
    candidates = [name, f"sdk/cpp/{name}", f"sdk/function/{name}"]
    if kind == '"':
        candidates.insert(0, str(pathlib.PurePosixPath(path).parent / name))
    return next((c for c in candidates if (root / c).is_file()), "")


def violations(root: pathlib.Path, path: str):
    layer = folder_of(path)
    if not layer:
        yield f"{path}: lies in no layer: name its folder in tests/house/layers.py"
        return
    may = BELOW[layer] + [layer]
    if path.endswith((".h", ".hpp")):
        may = PUBLIC_MAY.get(layer, may)
    for kind, name in INCLUDE.findall((root / path).read_text()):
        target = resolved(root, path, kind, name)
        if target:
            if not any(target == m or target.startswith(f"{m}/" if m else "") for m in may):
                yield f"{path}: may not include {target}"
        elif layer != "tests":
            if kind == '"':
                yield f"{path}: includes {name}, which is not in the repository"
            for library, users in ONLY.items():
                if re.match(library, name) and not path.startswith(tuple(users)):
                    yield f"{path}: may not include <{name}>: only {', '.join(users)} may"


def main() -> int:
    root = pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else sources.ROOT
    if root == sources.ROOT:
        paths = [str(p) for p in sources.files(".hpp", ".h", ".cpp", ".c")]
    else:
        paths = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.suffix in (".hpp", ".h", ".cpp", ".c"))
    found = [line for path in paths for line in violations(root, path)]
    print("\n".join(found) or f"{len(paths)} files include only downward")
    return 1 if found or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
