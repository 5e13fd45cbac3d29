#!/usr/bin/env python3
"""Fails when a page names a file, a program or an option that is not there. Usage: docs.py BUILD_FOLDER"""

import pathlib
import re
import shlex
import subprocess
import sys

import sources

ROOT = sources.ROOT
PROGRAM = re.compile(r"(?:build/release/bin/)?(sublet[a-z-]*|[a-z]+-client)$")


def help_of(words: list[str], build: pathlib.Path) -> str | None:
    """The help of the program that `words` start; nothing when it is none of ours."""
    if words[0].startswith("scripts/"):
        command = [str(ROOT / words[0])]
    elif match := PROGRAM.match(words[0]):
        command = [str(build / "bin" / match[1])]
        if match[1] in ("sublet", "sublet-bench") and len(words) > 1 and not words[1].startswith("-"):
            command.append(words[1])
    else:
        return None
    if not pathlib.Path(command[0]).exists():
        return ""
    return subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=30).stdout


def commands(text: str):
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def complaints(path: pathlib.Path, build: pathlib.Path):
    text = (ROOT / path).read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target and not (ROOT / path.parent / target).exists():
            yield f"{path}: links to {target}, which is not there"
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for name in re.findall(r"`((?:runtime|executor|client|sdk|examples|benchmarks|tests|scripts|docs)/[\w./-]*)", prose):
        if not (ROOT / name).exists():
            yield f"{path}: names {name}, which is not there"
    for words in commands(text):
        about = help_of(words, build)
        if about is None:
            if words[0] not in ("cmake", "git", "sudo", "curl"):
                yield f"{path}: runs {words[0]}, of which this test knows nothing"
            continue
        if not about:
            yield f"{path}: runs {words[0]}, which is not there or has no --help"
        for word in words[1:]:
            if word.startswith("--") and not re.search(re.escape(word.split("=")[0]) + r"\b", about):
                yield f"{path}: {' '.join(words)}: there is no {word}"
            if re.match(r"(build/release|examples)/", word) and "*" not in word:
                place = build / word.removeprefix("build/release/") if word.startswith("build/") else ROOT / word
                if not place.exists():
                    yield f"{path}: {' '.join(words)}: there is no {word}"


def main() -> int:
    build = pathlib.Path(sys.argv[1]).resolve()
    pages = sources.files(".md")
    found = [line for page in pages for line in complaints(page, build)]
    print("\n".join(found) or f"{len(pages)} pages name what is there")
    return 1 if found or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
