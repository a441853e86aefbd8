"""What a study leaves behind: a figure, a table, and in words what they say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from minisparse.experiments.environment import environment
from minisparse.experiments.runner import plain
from minisparse.experiments.theme import png
from minisparse.training.checkpoint import write_atomic

Progress = Callable[[float, str], None]
FOLDER = "studies"


def silent(done: float, label: str) -> None:
    """Progress nobody watches: share of the work that is done, and what is next."""


@dataclass(frozen=True)
class Study:
    """rows: one dict per line of the table, all with the same keys; words: sentences.

    files: what else belongs to it, by the ending of its name, such as an animation.
    """

    rows: list[dict[str, Any]]
    words: list[str]
    figure: Figure
    files: Mapping[str, bytes] = field(default_factory=dict)


def write(study: Study, name: str, seeds: Sequence[int], out: Path | str) -> tuple[Path, Path]:
    """Write the figure and the numbers to <out>/studies/<name>.png and .json; their paths.

    Other files are written beside them, as <name>.<ending>.
    """
    folder = Path(out) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    picture, numbers = folder / f"{name}.png", folder / f"{name}.json"
    write_atomic(picture, png(study.figure))
    for ending, content in study.files.items():
        write_atomic(folder / f"{name}.{ending}", content)
    facts = {
        "study": name,
        "seeds": list(seeds),
        "rows": study.rows,
        "words": study.words,
        "environment": environment(),
    }
    write_atomic(numbers, (json.dumps(plain(facts), indent=2, allow_nan=False) + "\n").encode())
    return picture, numbers
