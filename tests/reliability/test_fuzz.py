"""F-2: whatever the bytes, a reader returns a validated object or raises its one kind of error.

Counts: `MINISPARSE_RELIABILITY` = dev, ci or nightly. The same with figures, each reader in a process of its
own: `python -m tests.reliability.fuzz --profile ci`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minisparse.errors import DataFormatError
from tests.reliability import fuzz
from tests.reliability.counts import PROFILES, examples, profile
from tests.reliability.mutate import KINDS, mutated
from tests.reliability.processes import ROOT, python
from tests.reliability.targets import TARGETS, Case, Target

PROFILE, SECONDS = profile(), examples(120, 1_200, 86_400)


def test_every_reader_refuses_damage_in_its_one_way() -> None:
    """All readers in one process here; its memory is bounded, and the time of each input."""
    arguments = ["-m", "tests.reliability.fuzz", "--profile", PROFILE]
    done = python(arguments if PROFILE != "dev" else [*arguments, "--inside"], ROOT, seconds=SECONDS)
    results = json.loads(done.stdout or "[]")
    found = [finding for result in results for finding in result["findings"]]
    assert not found and done.returncode == 0, (found, done.stderr[-2000:])
    assert [result["target"] for result in results] == list(TARGETS)
    for result in results:
        assert result["inputs"] == TARGETS[result["target"]].counts[PROFILES.index(PROFILE)]
        accepted = {"read", "status 0", "status 130"} & result["ends"].keys()
        assert accepted and len(result["ends"]) > 1, result


def reading(what: Callable[[], object]) -> Target:
    """A reader that does this with every input."""

    def prepare(folder: Path) -> Case:
        return lambda rng: (b"", what)

    return Target("fake", (1, 1, 1), (DataFormatError,), prepare)


def raising(error: BaseException) -> Callable[[], object]:
    def read() -> object:
        raise error

    return read


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (raising(KeyError("x")), "KeyError"),
        (raising(DataFormatError("two\nlines")), "two lines"),
        (raising(SystemExit(1)), "SystemExit"),
        (lambda: time.sleep(9), "TooLong"),
        (lambda: np.ones(1 << 34), "MemoryError|Unable to allocate"),
    ],
)
def test_a_reader_that_breaks_the_promise_is_found(
    read: Callable[[], object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "limit_memory", lambda: None)  # of this process; 128 GB fail without it
    monkeypatch.setattr(fuzz, "SECONDS", 0.1)
    (finding,) = fuzz.attack(reading(read), 1, 0)["findings"]  # type: ignore[misc]
    assert any(word in finding["error"] for word in words.split("|"))


def test_memory_is_limited() -> None:
    code = (
        "import numpy as np; from tests.reliability.fuzz import limit_memory, MEMORY; limit_memory()\n"
        "np.ones(MEMORY // 16)\n"
        "try: np.ones(MEMORY // 7)\nexcept MemoryError: print('refused')"
    )
    assert python(["-c", code], ROOT).stdout == "refused\n"


def test_an_input_is_a_function_of_its_number() -> None:
    seeds = [bytes(range(256)), b"another one"]
    made = [[mutated(np.random.default_rng([0, k]), seeds) for k in range(300)] for _ in range(2)]
    assert made[0] == made[1] and len(set(made[0])) > 260
    rng = np.random.default_rng(0)
    for kind in KINDS:
        assert any(kind(rng, seeds[0], seeds) != seeds[0] for _ in range(10))
