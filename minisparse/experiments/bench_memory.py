"""Bytes of a network, counted exactly: every array that its objects hold, each buffer once."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minisparse.nn.network import Network
from minisparse.nn.optim import Optimizer
from minisparse.nn.param import Array

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def arrays_in(thing: Any) -> Iterator[Array]:
    """Every array reachable through containers and the attributes of our own objects."""
    seen: set[int] = set()
    waiting = [thing]
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, np.ndarray):
            yield found
        elif isinstance(found, dict):
            waiting += found.values()
        elif isinstance(found, list | tuple | set):
            waiting += found
        elif type(found).__module__.startswith("minisparse."):
            slots = [s for kind in type(found).__mro__ for s in getattr(kind, "__slots__", ())]
            waiting += [getattr(found, s) for s in slots if hasattr(found, s)]
            waiting += vars(found).values() if hasattr(found, "__dict__") else ()


def buffers(arrays: Iterable[Array]) -> dict[int, int]:
    """Address -> bytes of the memory behind these arrays, what a view leaves out included."""
    found = {}
    for a in arrays:
        while isinstance(a.base, np.ndarray):
            a = a.base
        if a.size:
            found[a.__array_interface__["data"][0]] = a.nbytes
    return found


def connection_bytes(network: Network, optimizer: Optimizer) -> dict[str, int]:
    """Bytes of the prunable weights by what they are: values, gradients, slots and structure."""
    found = {"values": 0, "gradients": 0, "slots": 0, "structure": 0}
    for name, layer in network.prunable().items():
        params = layer.weight.params()
        values = buffers(p.value for p in params.values())
        gradients = buffers(p.grad for p in params.values())
        whole = buffers(arrays_in(layer.weight))
        slots = buffers(arrays_in([optimizer.slots.get(f"{name}.{key}", {}) for key in params]))
        found["values"] += sum(values.values())
        found["gradients"] += sum(gradients.values())
        found["slots"] += sum(slots.values())
        rest = whole.keys() - values.keys() - gradients.keys()
        found["structure"] += sum(whole[address] for address in rest)
    return found


def activation_bytes(network: Network) -> int:
    """Bytes that layers hold between a forward and a backward pass, weights and biases not counted."""
    lasting = [*network.params().values(), *(layer.weight for layer in network.prunable().values())]
    kept = buffers(arrays_in([lasting, network.buffers()]))
    return sum(size for address, size in buffers(arrays_in(network)).items() if address not in kept)


def resident(what: str = "VmRSS") -> int | None:
    """Bytes of physical memory of this process: now ("VmRSS") or at most ("VmHWM"); None where unknown."""
    try:
        line = re.search(rf"^{what}:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if line is None else 1024 * int(line[1])


def forget_peak() -> None:
    """Let the largest resident memory count from now on, where the system can.

    What was freed is given back first: the C library keeps small blocks for later, which would hide that
    they are used again.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        RESET.write_text("5")
