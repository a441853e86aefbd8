"""Plan: the grid of a comparison, method x sparsity x seed, and the one that runs by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minisparse.errors import UsageError
from minisparse.experiments.settings import Value, fields_of
from minisparse.experiments.spec import RunSpec
from minisparse.methods.registry import find

REFERENCE = "dense"


@dataclass(frozen=True)
class Plan:
    """Methods at sparsities with seeds; `training` (parts of a RunSpec) is common to all runs.

    settings     explicit settings of single methods
    narrowed     the sparsities of methods that do not run at all of them, because they are slow
    """

    methods: tuple[str, ...]
    sparsities: tuple[float, ...]
    seeds: tuple[int, ...]
    training: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    narrowed: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def specs(self) -> list[RunSpec]:
        """All runs, seed by seed, so that what is finished early is a whole comparison.

        A method without a sparsity setting runs once per seed.
        """
        found: dict[str, RunSpec] = {}
        for seed in self.seeds:
            for method in self.methods:
                for settings in self._levels(method):
                    spec = RunSpec(method, tuple(settings.items()), seed=seed, **self.training)
                    found.setdefault(spec.key, spec)
        return list(found.values())

    def _levels(self, method: str) -> list[dict[str, Any]]:
        own = dict(self.settings.get(method, {}))
        if "sparsity" not in [setting.name for setting in fields_of(find(method).cls)]:
            return [own]
        return [own | {"sparsity": s} for s in self.narrowed.get(method, self.sparsities)]


# The runs are short (540 steps), so RigL exchanges every 20 steps instead of every 100, and a ticket is
# found in 3 rounds instead of 5.
DEFAULT_PLAN = Plan(
    methods=(REFERENCE, "random", "magnitude", "gradient", "snip", "synflow", "set", "rigl", "imp"),
    sparsities=(0.8, 0.9, 0.98, 0.998),
    seeds=(0, 1, 2),
    training={"epochs": 12, "batch": 32},
    settings={"rigl": {"every": 20}, "imp": {"rounds": 3}},
    narrowed={"imp": (0.9, 0.98, 0.998)},
)


def plan(
    methods: Sequence[str] | None = None,
    sparsities: Sequence[float] | None = None,
    seeds: int | Sequence[int] | None = None,
    **training: Any,
) -> list[RunSpec]:
    """The runs of a comparison; whatever is left out is as in DEFAULT_PLAN.

    seeds: how many, or which. training: parts of a RunSpec (model, data, epochs, batch, optimizer, rate,
    init, dtype). The dense reference is always among the methods. UsageError for unusable values.
    """
    chosen = DEFAULT_PLAN.methods if methods is None else tuple(dict.fromkeys((REFERENCE, *methods)))
    levels = DEFAULT_PLAN.sparsities if sparsities is None else tuple(sparsities)
    numbers = range(seeds) if isinstance(seeds, int) else DEFAULT_PLAN.seeds if seeds is None else seeds
    for name, values in (("methods", chosen), ("sparsities", levels), ("seeds", numbers)):
        if not values:
            raise UsageError(f"{name}: got none, expected at least one.")
    return Plan(
        chosen,
        levels,
        tuple(numbers),
        {**DEFAULT_PLAN.training, **training},
        DEFAULT_PLAN.settings,
        DEFAULT_PLAN.narrowed if sparsities is None else {},
    ).specs()
