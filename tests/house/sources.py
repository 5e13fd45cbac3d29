"""The files that the house's tests look at: what git tracks or would track."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def files(*suffixes: str, root: pathlib.Path = ROOT) -> list[pathlib.Path]:
    """Paths relative to root, sorted; only those that end with one of `suffixes`, or all."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={root}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, check=True, capture_output=True, text=True).stdout
    paths = {pathlib.Path(name) for name in listed.split("\0") if name}
    return sorted(p for p in paths if (root / p).is_file() and (not suffixes or p.name.endswith(suffixes)))
