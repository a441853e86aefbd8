"""Inputs that have a grammar: JSON objects, grids, command lines, CSR arrays; right in form only."""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np

from tests.reliability.mutate import Rng, mutated, one_of

GRID = """
title = "two methods"
seeds = [3, 1]
epochs = 2
data = "digits"
[[runs]]
method = ["random", "magnitude"]
model = ["lenet-300-100", "mlp:64-10"]
settings = { sparsity = [0.5, 0.9], schedule = "cubic" }
[[runs]]
method = "dense"
epochs = 4
"""
SCALARS = (
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"), "",
    "x",
    "magnitude", "float32", "../x", "\0", "\ud800", "9" * 300, "NaN", [], {}, [1], {"a": 1}, [[[[]]]],
)  # fmt: skip


def changed(rng: Rng, value: Any) -> Any:
    """The value with one part replaced, removed, doubled or wrapped."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    parts = list(inner)
    if parts and rng.random() < 0.75:
        key, part = parts[int(rng.integers(len(parts)))]
        copy = value.copy()
        copy[key] = changed(rng, part)
        return copy
    action = int(rng.integers(6))
    if action == 0 and isinstance(value, dict) and parts:
        return {k: v for k, v in parts if k != parts[int(rng.integers(len(parts)))][0]}
    if action == 1 and isinstance(value, dict):
        return value | {str(one_of(rng, ("", "x", "format", "model", "spec"))): one_of(rng, SCALARS)}
    if action == 2 and isinstance(value, list):
        return value + value
    if action == 3:
        return [value]
    if isinstance(value, int | float) and not isinstance(value, bool) and action == 4:
        return value * int(one_of(rng, (-1, 0, 2, 10**6, 10**18)))
    return one_of(rng, SCALARS)


def changed_object(rng: Rng, value: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with one to three changes within; itself an object still."""
    for _ in range(int(rng.integers(1, 4))):
        found = changed(rng, value)
        value = found if isinstance(found, dict) else {"wrapped": found}
    return value


def shipped_text(name: str) -> str:
    """The text of a grid that comes with the package."""
    return (resources.files("minisparse.experiments") / "grids" / f"{name}.toml").read_text(encoding="utf-8")


TEXTS = (
    "magnitude", "dense", "rigl", "imp", "snip", "obs", "set", "magnitud", "", "nan", "0.5", "x" * 200,
    "\\u0000",
    "digits", "moons", "mnist", "lenet-5", "mlp:64-4-10", "mlp:", "mlp:64-10:tanh", "resnet-20:0.25",
    "mlp:1-0",
    "sgd", "sgd:momentum=0.9", "sgd:momentum=2", "adam:lr=", "sgd:,", "cosine:lr=0.1", "cosine:lr=nan",
    "step:", "=",
    "float64", "float16", "csr", "masked", "nm", "cubic:begin=0.2,end=0.7", "rounds:3", "rounds:0",
    "rounds:1e9",
    "global", "erk", "uniform", "layerwise", "2:4", "4:2", "0:0", "block:4x4", "block:0x0", "block:1e9x1",
    "unstructured",
)  # fmt: skip
NUMBERS = (
    "0",
    "1",
    "2",
    "-1",
    "3.5",
    "0.9",
    "1.0",
    "nan",
    "inf",
    "1e300",
    "90",
    "true",
    "999999999999",
    "[]",
    "{}",
)
TOP = (
    "title",
    "seeds",
    "epochs",
    "batch",
    "model",
    "data",
    "optimizer",
    "rate",
    "init",
    "dtype",
    "storage",
    "epoch",
)
OWN = (*TOP[1:], "method", "method", "method", "settings")
SETTINGS = (
    "sparsity",
    "schedule",
    "allocation",
    "pattern",
    "every",
    "norm",
    "alpha",
    "rounds",
    "x",
    "self",
    "name",
)


def _value(rng: Rng, depth: int = 0) -> str:
    kind = int(rng.integers(8))
    if kind < 3:
        return f'"{one_of(rng, TEXTS)}"'
    if kind < 6 or depth > 1:
        return str(one_of(rng, NUMBERS))
    if kind == 6:
        return f"[{', '.join(_value(rng, depth + 1) for _ in range(int(rng.integers(4))))}]"
    pairs = (f"{one_of(rng, SETTINGS)} = {_value(rng, depth + 1)}" for _ in range(int(rng.integers(3))))
    return f"{{ {', '.join(pairs)} }}"


def grid(rng: Rng) -> str:
    """A grid of keys that exist, mostly, and values of any kind."""
    lines = [f"{key} = {_value(rng)}" for key in {str(one_of(rng, TOP)) for _ in range(int(rng.integers(4)))}]
    for _ in range(int(rng.integers(1, 4))):
        lines.append("[[runs]]")
        keys = {str(one_of(rng, OWN)) for _ in range(int(rng.integers(1, 5)))}
        if rng.random() < 0.7:
            keys.add("method")
        for key in sorted(keys):
            good = f'"{one_of(rng, TEXTS[:7])}"' if key == "method" and rng.random() < 0.7 else None
            table = key == "settings" and rng.random() < 0.8
            pairs = {str(one_of(rng, SETTINGS)): _value(rng, 2) for _ in range(2)}
            settings = "{ " + ", ".join(f"{k} = {v}" for k, v in pairs.items()) + " }"
            lines.append(f"{key} = {good or (settings if table else _value(rng))}")
    return "\n".join(lines)


VERBS = ("run", "run", "run", "compare", "compare", "list", "explain", "inspect", "report", "export", "data")
WORDS = (
    "magnitude", "dense", "rigl", "imp", "snip", "set", "l0", "sparsegpt", "methods", "models", "formats",
    "list", "verify",
    "dynamic", "none.toml", "abc", "--", "-", "-q", "-x", "MS100", "mnist", "all", "é", "\0", "a\nb", " ",
)  # fmt: skip
FLAGS = (
    "--sparsity", "--sparsities", "--methods", "--model", "--data", "--optimizer", "--rate", "--init",
    "--storage",
    "--epochs", "--batch", "--lr", "--seed", "--seeds", "--threads", "--dtype", "--schedule",
    "--allocation", "--pattern",
    "--norm", "--every", "--alpha", "--to", "--file", "--title", "--jobs", "--cluster", "--data-dir", "--out",
)  # fmt: skip
SWITCHES = (
    "--json",
    "--strict",
    "--fresh",
    "--no-color",
    "-q",
    "--normalize",
    "--no-normalize",
    "--force",
    "--version",
)


def command(rng: Rng) -> list[str]:
    """Words after `minisparse`: a verb, its object, flags with values that fit or do not."""
    argv = [str(one_of(rng, VERBS))] if rng.random() < 0.95 else []
    if rng.random() < 0.85:
        argv.append(str(one_of(rng, WORDS[:8] if argv[:1] == ["run"] and rng.random() < 0.8 else WORDS)))
    for _ in range(int(rng.integers(4))):
        if rng.random() < 0.2:
            argv.append(str(one_of(rng, SWITCHES)))
            continue
        flag = str(one_of(rng, FLAGS))
        kind = rng.random()
        value = str(one_of(rng, TEXTS if kind < 0.5 else NUMBERS))
        if kind > 0.8:
            value = mutated(rng, [value.encode() or b"x"]).decode("utf-8", "surrogateescape").replace("/", "")
        if flag == "--jobs":  # two worker processes would start for it
            value = str(one_of(rng, ("0", "-1", "x", "1", "")))
        if flag == "--cluster":
            value = str(one_of(rng, ("", "x", "tcp://127.0.0.1:1")))
        if flag in ("--out", "--file", "--data-dir"):
            value = str(one_of(rng, ("made", "a/b", "", ".", "\0", "x" * 300, "damaged.toml")))
        argv += [f"{flag}={value}"] if rng.random() < 0.3 else [flag, value]
    return argv


def csr(rng: Rng) -> tuple[Any, Any, Any, Any]:
    """indptr, indices, values, shape: valid ones with up to three changes."""
    rows, columns = int(rng.integers(0, 7)), int(rng.integers(1, 9))
    mask = rng.random((rows, columns)) < rng.random()
    indptr = np.r_[0, np.cumsum(mask.sum(axis=1, dtype=np.int64))]
    parts: list[Any] = [indptr, np.nonzero(mask)[1], rng.standard_normal(int(mask.sum())), (rows, columns)]
    for which in rng.permutation(4)[: int(rng.integers(4))]:
        parts[which] = _shape(rng, parts[3]) if which == 3 else _array(rng, parts[which])
        if which < 3 and rng.random() < 0.3 and isinstance(parts[which], np.ndarray):
            parts[which] = _array(rng, parts[which])
    return parts[0], parts[1], parts[2], parts[3]


def _shape(rng: Rng, shape: Any) -> Any:
    wild = (-1, 0, 1, 2**31, 2**62, 2**64, 10**30, 2.0, True, None, "3", float("nan"))
    changed = list(shape) if len(shape) == 2 else [3, 4]
    changed[int(rng.integers(2))] = one_of(rng, wild)
    return tuple(changed) if rng.random() < 0.8 else tuple(changed[:1]) * int(rng.integers(4))


def _array(rng: Rng, a: np.ndarray) -> Any:
    if a.ndim != 1 or a.dtype.kind not in "if":
        return a
    spot = int(rng.integers(a.size)) if a.size else 0
    action = int(rng.integers(8))
    if action == 0 and a.size:  # as a list: the sum may be larger than the array's type
        values = a.tolist()
        values[spot] += one_of(rng, (-1, 1, -(1 << 31), 1 << 31, 1 << 62, 1 << 64, 7, -7))
        return values
    if action == 1 and a.size:
        return np.delete(a, spot)
    if action == 2:
        return np.insert(a, spot, rng.integers(-2, 9))
    if action == 3:
        return a[: int(rng.integers(a.size + 1))]
    if action == 4:
        kinds = ("i1", "u1", "i4", "u4", ">i8", "u8", "f4", "f8", "f2", "c16", "?", "O", "U5", "M8[s]")
        with np.errstate(all="ignore"):
            return a.astype(str(one_of(rng, kinds)))
    if action == 5:
        return a[None] if rng.random() < 0.5 else a.tolist()
    if action == 6:
        return one_of(rng, (None, 3, "abc", [1, 2], [[1], [2, 3]], {}))
    return a[::-1]
