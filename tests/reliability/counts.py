"""How many examples a test tries: `MINISPARSE_RELIABILITY` = dev (the default), ci or nightly."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

VARIABLE = "MINISPARSE_RELIABILITY"
PROFILES = ("dev", "ci", "nightly")


def profile() -> str:
    """The profile asked for. ValueError for a name that is none."""
    name = os.environ.get(VARIABLE, "dev")
    if name not in PROFILES:
        raise ValueError(f"{VARIABLE}: got {name!r}, expected one of {', '.join(PROFILES)}.")
    return name


def examples(dev: T, ci: T, nightly: T) -> T:
    """The one of the profile asked for."""
    return (dev, ci, nightly)[PROFILES.index(profile())]
