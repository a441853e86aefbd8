"""What a result depends on besides its spec: versions, processor, linear-algebra build and threads."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import version
from typing import Any

from threadpoolctl import threadpool_info

import minisparse

LIBRARIES = ("numpy", "scipy", "numba", "matplotlib", "safetensors")


@cache
def _fixed() -> dict[str, str]:
    """The part that cannot change while the process lives."""
    facts = {"minisparse": minisparse.__version__, "python": platform.python_version()}
    facts |= {name: version(name) for name in LIBRARIES}
    facts["system"] = f"{platform.system()} {platform.machine()}"
    facts["processor"] = _processor()
    facts["cores"] = str(os.cpu_count() or 1)
    return facts


def environment() -> dict[str, str]:
    """Facts by name, as text; `blas threads` is the number in force now."""
    blas = [entry for entry in threadpool_info() if entry.get("user_api") == "blas"]
    builds = sorted({_build(entry) for entry in blas})
    threads = sorted({int(entry["num_threads"]) for entry in blas})
    facts = {"blas": ", ".join(builds) or "unknown"}
    facts["blas threads"] = ", ".join(str(n) for n in threads) or "unknown"
    return _fixed() | facts


def _build(entry: dict[str, Any]) -> str:
    parts = (entry.get("internal_api"), entry.get("version"), entry.get("architecture"))
    return " ".join(str(part) for part in parts if part)


def _processor() -> str:
    """Name of the processor, or as much of it as the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            names = [line.partition(":")[2].strip() for line in stream if line.startswith("model name")]
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()
