"""RunSpec: all that decides a run's result, and the key that tells runs apart.

The canonical text of a spec is JSON with sorted keys, only what differs from the defaults, and the
number of the format. The key is the start of its SHA-256: equal specs have equal keys whatever the
order or the spelling of their settings, and a finished key is never run again. Changing a default
changes what a text means, so it needs a new format number.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from minisparse.data.registry import available
from minisparse.errors import UsageError, unknown_name
from minisparse.experiments.settings import (
    build_method,
    canonical_optimizer,
    canonical_rate,
    settings_of,
)
from minisparse.methods.base import Method
from minisparse.nn.init import INITIALIZERS
from minisparse.nn.models import PLANS
from minisparse.weights.formats import FORMATS, MASKED

FORMAT = 1
KEY_LENGTH = 16
PRECISIONS = ("float32", "float64")
FINGERPRINT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class RunSpec:
    """One run: a method with settings, on a model, data and seed, for so many epochs.

    storage: the format in which sparse layers are kept and trained, "masked" for matrices.
    weights: `exchange.fingerprint` of the network that training starts from, where it was not initialised.

    Settings, optimizer and rate may be spelled in any way that can be read; they are stored in their
    canonical text. Raises UsageError or UnknownNameError when a part is unknown or unusable.
    """

    method: str
    settings: tuple[tuple[str, str], ...] = ()
    model: str = "lenet-300-100"
    data: str = "digits"
    seed: int = 0
    epochs: int = 30
    batch: int = 64
    optimizer: str = "sgd:momentum=0.9"
    rate: str = "cosine:lr=0.1"
    init: str = "kaiming-normal"
    dtype: str = "float32"
    storage: str = MASKED
    weights: str = ""

    def __post_init__(self) -> None:
        settings = settings_of(build_method(self.method, dict(self.settings)))
        object.__setattr__(self, "settings", tuple(sorted(settings.items())))
        object.__setattr__(self, "optimizer", canonical_optimizer(self.optimizer))
        object.__setattr__(self, "rate", canonical_rate(self.rate))
        for name, least in (("seed", 0), ("epochs", 1), ("batch", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"{name}: got {value!r}, expected a whole number >= {least}.")
        _known("model", self.model.partition(":")[0], PLANS)
        _known("data set", self.data, available())
        _known("initializer", self.init, INITIALIZERS)
        _known("precision", self.dtype, dict.fromkeys(PRECISIONS))
        _known("storage", self.storage, dict.fromkeys((MASKED, *FORMATS)))
        if not isinstance(self.weights, str) or self.weights and not FINGERPRINT.fullmatch(self.weights):
            raise UsageError(f"weights: got {self.weights!r}, expected 16 hexadecimal digits or none.")

    def build(self) -> Method:
        """The method with its settings."""
        return build_method(self.method, dict(self.settings))

    def canonical(self) -> str:
        """The one text of this spec."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))

    @property
    def key(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical text."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:KEY_LENGTH]

    @property
    def sparsity(self) -> float:
        """The sparsity asked for; 0 for a method that has no such setting."""
        return float(getattr(self.build(), "sparsity", 0.0) or 0.0)

    @property
    def label(self) -> str:
        """Name for people: ``rigl 0.95 every=20, lenet-300-100 on digits, seed 0``."""
        level = f" {self.sparsity:g}" if self.sparsity else ""
        more = "".join(f" {key}={value}" for key, value in self.settings if key != "sparsity")
        stored = "" if self.storage == MASKED else f" in {self.storage}"
        begun = f" from weights {self.weights[:8]}" if self.weights else ""
        return f"{self.method}{level}{more}{stored}, {self.model} on {self.data}{begun}, seed {self.seed}"

    def to_json(self) -> dict[str, Any]:
        """Plain data: the method, what differs from the defaults, and the format number."""
        facts: dict[str, Any] = {"format": FORMAT, "method": self.method}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name not in facts and value != f.default:
                facts[f.name] = value
        if self.settings:
            facts["settings"] = dict(self.settings)
        return facts

    @classmethod
    def from_json(cls, source: str | Mapping[str, Any]) -> RunSpec:
        """A spec from `to_json`'s data or `canonical`'s text; checked like any other. UsageError."""
        return cls(**_facts(source))

    @classmethod
    def stored(cls, source: Mapping[str, Any]) -> RunSpec:
        """A spec from a result that was kept: not checked against the methods of today.

        Results stay readable when a method's settings change or its module is not installed.
        """
        facts = _facts(source)
        spec = object.__new__(cls)
        for f in fields(cls):
            object.__setattr__(spec, f.name, facts.get(f.name, f.default))
        return spec


def _facts(source: str | Mapping[str, Any]) -> dict[str, Any]:
    try:
        facts = dict(json.loads(source) if isinstance(source, str) else source)
        number = facts.pop("format", FORMAT)
        facts["settings"] = tuple(sorted(dict(facts.get("settings", ())).items()))
    except (ValueError, TypeError):
        raise UsageError(f"spec cannot be read: got {str(source)[:60]!r}, expected a JSON object.") from None
    if number != FORMAT:
        raise UsageError(
            f"spec has another format: got {number!r}, expected {FORMAT}. Use the version that wrote it."
        )
    names = [f.name for f in fields(RunSpec)]
    for key in facts:
        if key not in names:
            raise unknown_name("part of a spec", key, names)
    if "method" not in facts:
        raise UsageError("spec has no method: got none, expected 'method'. See: minisparse list methods")
    return facts


def _known(kind: str, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        raise unknown_name(kind, name, known)
