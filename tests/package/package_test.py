#!/usr/bin/env python3
"""Installs a finished build into a folder of its own and builds users' programs against it.

Usage: package_test.py BUILD_FOLDER
"""

import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def run(*command, **options) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def readme_project(folder: pathlib.Path) -> None:
    """README's blocks as files: C++ blocks name theirs in their first line."""
    text = (ROOT / "README.md").read_text()
    sources = re.findall(r"^```cpp\n// (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    if [name for name, _ in sources] != ["upper.cpp", "shout.cpp"]:
        sys.exit(f"README.md shows {[name for name, _ in sources]}, not upper.cpp and shout.cpp")
    for name, code in sources:
        (folder / name).write_text(code)
        if len(code.splitlines()) > 20:
            sys.exit(f"README.md promises 20 lines; {name} has {len(code.splitlines())}")
    (folder / "CMakeLists.txt").write_text(re.search(r"^```cmake\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1])


def build_user(source: pathlib.Path, build: pathlib.Path, prefix: pathlib.Path) -> None:
    run("cmake", "-S", source, "-B", build, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}",
        "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror", "--no-warn-unused-cli", "-DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF")
    run("cmake", "--build", build)


def main() -> None:
    build = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="sublet-package-") as name:
        folder = pathlib.Path(name)
        prefix = folder / "prefix"
        run("cmake", "--install", build, "--prefix", prefix)

        for program in ("sublet", "sublet-manager", "sublet-agent", "sublet-worker", "sublet-bench"):
            run(prefix / "bin" / program, "--help")
        for shared in ("man/man1/sublet.1", "bash-completion/completions/sublet", "zsh/site-functions/_sublet",
                       "fish/vendor_completions.d/sublet.fish"):
            if "drain" not in (prefix / "share" / shared).read_text():
                sys.exit(f"share/{shared} does not tell of the command's drain")
        for path in [*prefix.rglob("*.hpp"), *prefix.rglob("*.h"), *prefix.rglob("*.cmake")]:
            if str(ROOT) in path.read_text():
                sys.exit(f"the installed {path.relative_to(prefix)} names the folder that it was built in")

        build_user(HERE / "c", folder / "c", prefix)
        build_user(HERE / "user", folder / "proof", prefix)
        print(run(folder / "proof" / "proof"), end="")
        linked = run("ldd", folder / "proof" / "proof")
        for library in ("libfabric", "libboost", "libspdlog"):
            if library in linked:
                sys.exit(f"a user's program is linked with {library}:\n{linked}")

        (folder / "readme").mkdir()
        readme_project(folder / "readme")
        build_user(folder / "readme", folder / "readme-build", prefix)
        print("README's programs build against the installed tree")


if __name__ == "__main__":
    main()
