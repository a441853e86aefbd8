"""What was measured on this machine, kept in one JSON file in the user's cache folder.

MINISPARSE_HOME, or the platform's cache folder; written to a temporary file and moved into place, so that a
reader sees the old file or the new one. A file that cannot be read counts as empty, one that cannot be
written is done without.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pooch
from llvmlite import binding
from threadpoolctl import threadpool_info

VERSION = 2
log = logging.getLogger("minisparse.weights")


def path() -> Path:
    """Where the file is, whether it exists or not."""
    home = os.environ.get("MINISPARSE_HOME") or pooch.os_cache("minisparse")
    return Path(home) / "formats.json"


def machine() -> dict[str, Any]:
    """What a measured time depends on besides the work: processor, threads, libraries."""
    libraries = ("{internal_api} {version} x{num_threads}".format(**info) for info in threadpool_info())
    return {
        "processor": f"{platform.machine()} {binding.get_host_cpu_name()}",
        "threads": numba.get_num_threads(),
        "numba": numba.__version__,
        "numpy": np.__version__,
        "libraries": sorted(set(libraries)),
    }


def key(facts: dict[str, Any]) -> str:
    """Short name of a piece of work on this machine, from all that its time depends on."""
    text = json.dumps({"version": VERSION, "machine": machine(), **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def load() -> dict[str, Any]:
    """All that is remembered, by key."""
    try:
        found = json.loads(path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remember(name: str, value: Any) -> None:
    """Add one entry to the file as it is now."""
    target = path()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(load() | {name: value}, indent=1, sort_keys=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=target.parent, delete=False) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, target)
    except OSError as error:
        log.info("measured formats are not kept: %s", error)
