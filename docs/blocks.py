"""The code blocks of the documentation, run as they stand.

Of each page the ```python blocks run in order in one module; ```bash and ```console blocks run in between
in the same folder, a temporary one. In a console block commands follow "$ "; the lines below them, if any,
are what they print. <!-- output --> above a ```text block says that it is what the block before printed. In
expected output "..." stands for anything, and spaces count as one.

<!-- not run: reason --> above a block leaves it out.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

LANGUAGES = ("python", "bash", "console")
FENCE = re.compile(r"^( *)(`{3,}|~{3,}) *([\w-]*).*$")
REASON = re.compile(r"<!-- not run: \S.*-->")
MATCH = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, its text, and the comment above it."""

    line: int
    language: str
    text: str
    comment: str


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page in order."""
    lines = page.splitlines()
    comment, i = "", 0
    while i < len(lines):
        found = FENCE.match(lines[i])
        if found is None:
            comment = lines[i].strip() if lines[i].strip() else comment
            i += 1
            continue
        indent, fence, language = found.groups()
        start = i = i + 1
        while i < len(lines) and lines[i].strip() != fence:
            i += 1
        text = "\n".join(line.removeprefix(indent) for line in lines[start:i])
        yield Block(start, language, text, comment)
        comment, i = "", i + 1


def plan(page: str, languages: Sequence[str] = LANGUAGES) -> list[tuple[Block, str | None]]:
    """The blocks that run, each with the output it must have (None: any). ValueError for a stray output."""
    found: list[tuple[Block, str | None]] = []
    previous = None
    for block in blocks(page):
        if block.comment == "<!-- output -->":
            if previous is None or not found or found[-1][0] is not previous:
                raise ValueError(f"line {block.line}: output of no block that runs")
            found[-1] = (previous, block.text)
        elif block.language in languages and not REASON.fullmatch(block.comment):
            found.append((block, None))
        previous = block
    return found


def problems(page: Path, folder: Path, languages: Sequence[str] = LANGUAGES) -> list[str]:
    """Run a page's blocks in the folder; what went wrong first, as one message, or nothing."""
    # a module that can be found, since dataclasses and the catalogue look theirs up
    module = sys.modules["page"] = ModuleType("page")
    for block, want in plan(page.read_text(encoding="utf-8"), languages):
        try:
            if block.language == "python":
                with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out:
                    # the name says where a traceback comes from
                    exec(compile("\n" * block.line + block.text, str(page), "exec"), vars(module))
                pairs = [(want, out.getvalue())]
            elif block.language == "bash":
                pairs = [(want, shell(block.text, folder))]
            else:
                pairs = [(expected, shell(command, folder)) for command, expected in session(block.text)]
        except Exception:
            return [f"{page}:{block.line}: {traceback.format_exc(limit=-2)}"]
        for expected, got in pairs:
            if expected is not None and not agree(expected, got):
                return [f"{page}:{block.line}: output differs. Expected:\n{expected}\nGot:\n{got}"]
    return []


def shell(command: str, folder: Path) -> str:
    """What a command prints; RuntimeError if it fails."""
    words = ["bash", "-euo", "pipefail", "-c", command]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {command}\n{done.stdout}{done.stderr}")
    return done.stdout


def session(text: str) -> list[tuple[str, str | None]]:
    """(command, what it prints or None) of a console block."""
    found: list[tuple[str, str | None]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], None))
        elif found and line.strip():
            command, so_far = found[-1]
            found[-1] = (command, line if so_far is None else f"{so_far}\n{line}")
        elif line.strip():
            raise ValueError(f"output before the first command: {line}")
    return found


def agree(want: str, got: str) -> bool:
    """Whether the output is the expected one."""
    return doctest.OutputChecker().check_output(want.strip() + "\n", got.strip() + "\n", MATCH)
